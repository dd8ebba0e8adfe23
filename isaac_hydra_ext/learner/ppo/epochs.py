"""All minibatch steps of an update: device tensors in, device tensors out.

Runs in the learner's process. Eager, compiled and inside a CUDA graph it is this one code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.optimizer import FlatAdam
from isaac_hydra_ext.learner.ppo.losses import (
    ActorLoss,
    ActorSamples,
    CriticSamples,
    actor_loss,
    critic_loss,
)
from isaac_hydra_ext.learner.ppo.precision import matrix_products
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.system.compiler import fused
from isaac_hydra_ext.system.cuda import Beside

Obs = Mapping[str, torch.Tensor]
# Of the actor's loss and the critic's.
Forwards = tuple[Callable[..., ActorLoss], Callable[..., torch.Tensor]]
MINIBATCH_METRICS = (  # what `_step` returns, in this order
    "Loss/surrogate",
    "Loss/entropy",
    "Policy/kl",
    "Policy/clip_fraction",
    "Loss/value",
    "Loss/actor_grad_norm",
    "Loss/critic_grad_norm",
)


@dataclass
class Samples:
    """One iteration's, flat: `obs` as [N, ...] of every group that a network reads."""

    obs: dict[str, torch.Tensor]
    actor: ActorSamples
    critic: CriticSamples


class Epochs:
    """Passes over the samples in shuffled minibatches."""

    def __init__(
        self, ppo: PPOConfig, policy: ActorCritic, usual_samples: int, compiled: bool
    ) -> None:
        """Make the optimizer, and compile what can be.

        Args:
            ppo: Of the run.
            policy: Trained in place.
            usual_samples: N of an iteration from which no env is left out.
            compiled: Fuse kernels with torch.compile.
        """
        self._ppo, self._policy, self._usual_samples = ppo, policy, usual_samples
        self._device = policy.flat.device
        self.optimizer = FlatAdam(ppo, policy, compiled)
        self._fused = fused(self._actor_loss, compiled), fused(self._critic_loss, compiled)
        parameters = list(policy.parameters())
        critics = len(list(policy.critic.parameters()))
        self._actor_parameters, self._critic_parameters = (
            parameters[:-critics],
            parameters[-critics:],
        )
        self._critics_stream = Beside(self._device)

    def run(self, samples: Samples, orders_EN: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take all steps, without the host knowing how they go; returns their metrics.

        Args:
            samples: Of the iteration.
            orders_EN: A permutation of the samples' indices for each epoch.
        """
        # Fused kernels are of one size: another number of samples would compile them anew.
        usual = samples.critic.target_M.shape[0] == self._usual_samples
        forwards = self._fused if usual else (self._actor_loss, self._critic_loss)
        optimizer = self.optimizer
        optimizer.begin()
        totals = torch.zeros(len(MINIBATCH_METRICS), device=self._device)
        steps = torch.zeros((), device=self._device)
        # As equal as can be: a step on the few that are left over would undo the others' work.
        minibatches = -(-orders_EN.shape[1] // self._ppo.batch_size)
        for order in orders_EN:
            for rows in order.tensor_split(minibatches):
                stats = self._step(forwards, samples, rows)
                taken = 1.0 - optimizer.stop
                totals += torch.where(taken > 0, stats, 0.0)
                steps += taken
        finite = torch.isfinite(self._policy.flat).all()
        return {
            **dict(zip(MINIBATCH_METRICS, totals / steps.clamp(min=1.0), strict=True)),
            "Loss/minibatch_steps": steps,
            "Loss/stopped_early": optimizer.stop,
            "Loss/undone": torch.maximum(optimizer.bad, 1.0 - finite.float()),
        }

    def _step(self, forwards: Forwards, samples: Samples, rows: torch.Tensor) -> torch.Tensor:
        """Take one minibatch step, or none after a stop; returns its metrics."""
        actor_forward, critic_forward = forwards
        with matrix_products(self._ppo.precision, self._device), self._critics_stream:
            value = critic_forward(samples.obs, samples.critic, rows)
            critic_gradients = _gradients(self._ppo.value_coef * value, self._critic_parameters)
        with matrix_products(self._ppo.precision, self._device):
            actor = actor_forward(samples.obs, samples.actor, rows)
            actor_gradients = _gradients(actor.total, self._actor_parameters)
        self._critics_stream.join()
        value = value.detach()
        norms = self.optimizer.step(
            [*actor_gradients, *critic_gradients], [actor.total.detach(), value], actor.kl
        )
        scalars = [actor.surrogate, actor.entropy, actor.kl, actor.clip_fraction, value]
        return torch.cat([torch.stack(scalars), norms])

    def _actor_loss(self, obs: Obs, samples: ActorSamples, rows: torch.Tensor) -> ActorLoss:
        policy = self._policy
        params = policy.action_params({group: obs[group][rows] for group in policy.actor_groups})
        return actor_loss(self._ppo, policy.distribution, samples.take(rows), params.float())

    def _critic_loss(self, obs: Obs, samples: CriticSamples, rows: torch.Tensor) -> torch.Tensor:
        policy = self._policy
        value = policy.raw_value({group: obs[group][rows] for group in policy.critic_groups})
        return critic_loss(self._ppo, samples.take(rows), value.float())


def _gradients(
    loss: torch.Tensor, parameters: list[torch.nn.Parameter]
) -> tuple[torch.Tensor, ...]:
    """Return the gradient for every parameter; zeros for one that the loss does not read."""
    return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
