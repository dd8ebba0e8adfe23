"""All minibatch steps of an update: device tensors in, device tensors out.

Runs in the learner's process. Eager, compiled and inside a CUDA graph it is this one code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.optimizer import FlatOptimizer
from isaac_hydra_ext.learner.ppo.advantages import normalized
from isaac_hydra_ext.learner.ppo.by_hand import by_hand
from isaac_hydra_ext.learner.ppo.images import Rows
from isaac_hydra_ext.learner.ppo.losses import (
    ActorLoss,
    ActorSamples,
    CriticSamples,
    actor_loss,
    critic_loss,
)
from isaac_hydra_ext.learner.ppo.precision import matrix_products
from isaac_hydra_ext.learner.ppo.symmetry import Symmetry
from isaac_hydra_ext.learner.trained_terms import TrainedTerm
from isaac_hydra_ext.models.policy import Policy, Sequences
from isaac_hydra_ext.models.policy import Samples as Inputs
from isaac_hydra_ext.system.compiler import fused
from isaac_hydra_ext.system.cuda import Beside

# Indices of its samples, and whose columns they are.
Minibatch = tuple[torch.Tensor, Sequences | None]
# Of the actor's loss and the critic's.
Forwards = tuple[Callable[..., ActorLoss], Callable[..., torch.Tensor]]
# What `_step` returns, in this order; then each parameter group's gradient, and the terms' losses.
MINIBATCH_METRICS = (
    "Loss/surrogate",
    "Loss/entropy",
    "Policy/kl",
    "Policy/clip_fraction",
    "Loss/value",
)


@dataclass
class Samples:
    """One iteration's, flat.

    Attributes:
        inputs: Name -> [N, ...]: what the networks and the terms read.
        actor: For the actor's loss.
        critic: For the critic's.
        sequences: Whose columns they are, of a policy with memory: a minibatch is whole columns.
    """

    inputs: Mapping[str, Rows]
    actor: ActorSamples
    critic: CriticSamples
    sequences: Sequences | None = None


class Epochs:
    """Passes over the samples in shuffled minibatches."""

    def __init__(
        self,
        ppo: PPOConfig,
        policy: Policy,
        terms: Sequence[TrainedTerm],
        group: Group,
        usual_samples: int,
        compiled: bool,
        mirrored: Symmetry | None = None,
    ) -> None:
        """Make the optimizer, and compile what can be.

        Args:
            ppo: Of the run.
            policy: Trained in place.
            terms: Further losses.
            group: The ranks that learn together.
            usual_samples: N of an iteration from which no env is left out.
            compiled: Fuse kernels with torch.compile.
            mirrored: What each minibatch has copies by, if by anything.
        """
        self._mirrored = mirrored
        self._ppo, self._policy, self._usual_samples = ppo, policy, usual_samples
        self._terms, self._group = terms, group
        self._device = policy.flat.device
        self.optimizer = FlatOptimizer(ppo, policy, group, compiled)
        self._fused = fused(self._actor_loss, compiled), fused(self._critic_loss, compiled)
        groups = policy.parameter_groups()
        self._actor_parameters, self._critic_parameters = [*groups["actor"]], [*groups["critic"]]
        self._shared_parameters = [*groups.get("shared", [])]
        simple = self._device.type == "cpu" and not compiled
        self._by_hand = by_hand(ppo, policy) if simple else None
        self._critics_stream = Beside(self._device)
        norms = [f"Loss/{name}_grad_norm" for name in groups]
        self._tags = [*MINIBATCH_METRICS, *norms, *(f"Loss/{term.name}" for term in terms)]

    def run(self, samples: Samples, orders_EN: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take all steps, without the host knowing how they go; returns their metrics.

        Args:
            samples: Of the iteration.
            orders_EN: A permutation of the samples' indices, or the columns', for each epoch.
        """
        # Fused kernels are of one size: another number of samples would compile them anew.
        usual = samples.critic.target_M.shape[0] == self._usual_samples
        forwards = self._fused if usual else (self._actor_loss, self._critic_loss)
        optimizer = self.optimizer
        optimizer.begin()
        if self._by_hand is not None:
            vectors = cast("Mapping[str, torch.Tensor]", samples.inputs)  # chains read no images
            self._by_hand.begin(vectors, samples.actor, samples.critic)
        totals = torch.zeros(len(self._tags), device=self._device)
        steps = torch.zeros((), device=self._device)
        for order in orders_EN:
            minibatches = self._minibatches(order, samples.sequences)
            of_epoch = self._normalized(samples, minibatches)
            for rows, sequences in minibatches:
                stats = self._step(forwards, of_epoch, rows, sequences)
                taken = 1.0 - optimizer.stop
                totals += torch.where(taken > 0, stats, 0.0)
                steps += taken
        finite = torch.isfinite(self._policy.flat).all()
        return {
            **dict(zip(self._tags, totals / steps.clamp(min=1.0), strict=True)),
            "Loss/minibatch_steps": steps,
            "Loss/stopped_early": optimizer.stop,
            "Loss/undone": torch.maximum(optimizer.bad, 1.0 - finite.float()),
        }

    def _minibatches(self, order: torch.Tensor, sequences: Sequences | None) -> list[Minibatch]:
        """Cut a permutation into minibatches of the same number on every rank.

        As equal as can be: a step on the few that are left over would undo the others' work.
        """
        alone, N = self._group.size == 1, order.shape[0]
        T = 1 if sequences is None else sequences.starts_TC.shape[0]
        samples = T * N if alone else self._usual_samples
        parts = order.tensor_split(-(-samples // self._ppo.batch_size))
        if sequences is None:
            return [(rows, None) for rows in parts]
        firsts_T1 = torch.arange(0, T * N, N, device=order.device).unsqueeze(1)
        return [((firsts_T1 + taken).flatten(), sequences.take(taken)) for taken in parts]

    def _normalized(self, samples: Samples, minibatches: Sequence[Minibatch]) -> Samples:
        """Return the samples with advantages normalised in each minibatch, if that is wanted."""
        if not self._ppo.normalize_advantages_per_mini_batch:
            return samples
        advantage_N = samples.actor.advantage_M.clone()
        for rows, _ in minibatches:
            advantage_N[rows] = normalized(advantage_N[rows], self._group)
        return replace(samples, actor=replace(samples.actor, advantage_M=advantage_N))

    def _step(
        self,
        forwards: Forwards,
        samples: Samples,
        rows: torch.Tensor,
        sequences: Sequences | None,
    ) -> torch.Tensor:
        """Take one minibatch step, or none after a stop; returns its metrics."""
        if self._by_hand is None:
            actor, value, gradients = self._gradients(forwards, samples, rows, sequences)
        else:
            actor, value, gradients = self._by_hand.gradients(rows, apart=bool(self._terms))
        further, own = [], []
        # What the terms read is gathered once for all of them.
        inputs = {name: x[rows] for name, x in samples.inputs.items()} if self._terms else {}
        for term in self._terms:
            loss, gradients, of_term = self._term_gradients(term, inputs, gradients)
            further.append(loss)
            own.append(of_term)
        count, losses = rows.shape[0], [actor.total.detach(), value, *further]
        norms = self.optimizer.step(gradients, losses, actor.kl, count)
        for term, of_term in zip(self._terms, own, strict=True):
            term.step(of_term, self.optimizer.stop, self._group, count)
        scalars = [actor.surrogate, actor.entropy, actor.kl, actor.clip_fraction, value]
        return torch.cat([torch.stack(scalars), norms, *(loss.reshape(1) for loss in further)])

    def _gradients(
        self,
        forwards: Forwards,
        samples: Samples,
        rows: torch.Tensor,
        sequences: Sequences | None = None,
    ) -> tuple[ActorLoss, torch.Tensor, list[torch.Tensor]]:
        """Return the actor's loss, the critic's, and the gradients of all parameters.

        Those of what both networks read through are the sum of both losses' gradients.
        """
        actor_forward, critic_forward = forwards
        own, shared = self._actor_parameters, self._shared_parameters
        with matrix_products(self._ppo.precision, self._device), self._critics_stream:
            value = critic_forward(samples.inputs, samples.critic, rows, sequences)
            critic_gradients = _gradients(
                self._ppo.value_coef * value, [*shared, *self._critic_parameters]
            )
        with matrix_products(self._ppo.precision, self._device):
            actor = actor_forward(samples.inputs, samples.actor, rows, sequences)
            actor_gradients = _gradients(actor.total, [*own, *shared])
        self._critics_stream.join()
        both = [a + c for a, c in zip(actor_gradients[len(own) :], critic_gradients, strict=False)]
        gradients = [*actor_gradients[: len(own)], *both, *critic_gradients[len(shared) :]]
        return actor, value.detach(), gradients

    def _term_gradients(
        self,
        term: TrainedTerm,
        minibatch: Inputs,
        gradients: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Return a term's loss, the policy's gradients with its own added, and the term's."""
        with matrix_products(self._ppo.precision, self._device):
            loss = term.term.loss(self._policy, minibatch).float()
            policys = [self._actor_parameters, self._shared_parameters, self._critic_parameters]
            parameters = [p for part in [*policys, term.parameters] for p in part]
            weighted = loss if term.term.weight == 1.0 else term.term.weight * loss
            found = torch.autograd.grad(weighted, parameters, allow_unused=True)
        ours = [g if more is None else g + more for g, more in zip(gradients, found, strict=False)]
        theirs = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(term.parameters, found[len(gradients) :], strict=True)
        ]
        return loss.detach(), ours, theirs

    def _actor_loss(
        self,
        inputs: Mapping[str, Rows],
        samples: ActorSamples,
        rows: torch.Tensor,
        sequences: Sequences | None,
    ) -> ActorLoss:
        policy, mirrored, samples = self._policy, self._mirrored, samples.take(rows)
        obs = {name: inputs[name][rows] for name in policy.actor_groups}
        if mirrored is not None:
            obs, samples = mirrored.obs(obs), mirrored.of_actor(samples)
        params = policy.action_params(obs, sequences)
        return actor_loss(self._ppo, policy.distribution, samples, params.float())

    def _critic_loss(
        self,
        inputs: Mapping[str, Rows],
        samples: CriticSamples,
        rows: torch.Tensor,
        sequences: Sequences | None,
    ) -> torch.Tensor:
        policy, mirrored, samples = self._policy, self._mirrored, samples.take(rows)
        obs = {name: inputs[name][rows] for name in policy.critic_groups}
        if mirrored is not None:
            obs, samples = mirrored.obs(obs), mirrored.of_critic(samples)
        value = policy.raw_value(obs, sequences)
        return critic_loss(self._ppo, samples, value.float())


def _gradients(loss: torch.Tensor, parameters: list[nn.Parameter]) -> tuple[torch.Tensor, ...]:
    """Return the gradient for every parameter; zeros for one that the loss does not read."""
    return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
