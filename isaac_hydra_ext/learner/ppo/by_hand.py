"""A minibatch's losses and gradients without autograd, for chains of layers on a CPU.

Runs in the learner's process. The operations of a small network's minibatch step take a few
microseconds each there; recording them for autograd, and making tensors for their results, takes
longer than they do. The numbers are those of `losses.py` and autograd, but for rounding: that code
is the reference, and this one is tested against it.
"""

from collections.abc import Mapping
from itertools import accumulate

import torch

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.ppo.chains import Stack, inputs, sizes
from isaac_hydra_ext.learner.ppo.closed_form import (
    ActorByHand,
    CategoricalLoss,
    GaussianLoss,
    Place,
    ValueMinibatch,
)
from isaac_hydra_ext.learner.ppo.losses import ActorLoss, ActorSamples, CriticSamples
from isaac_hydra_ext.models.distributions import Categorical, Gaussian
from isaac_hydra_ext.models.policy import Chain, Policy


class ByHand:
    """Gradients of both losses for all of a policy's parameters, in its own order.

    What is fixed during an update lies in one tensor, so that a minibatch is gathered at once.
    """

    def __init__(
        self, ppo: PPOConfig, policy: Policy, actor: Chain, critic: Chain, loss: ActorByHand
    ) -> None:
        """See `by_hand`."""
        self.ppo, self.actor, self.critic, self.loss = ppo, actor, critic, loss
        groups = policy.parameter_groups().values()
        self._parameters = [parameter for group in groups for parameter in group]
        ends = [*accumulate(parameter.numel() for parameter in self._parameters)]
        starts = zip(self._parameters, [0, *ends[:-1]], strict=True)
        places = {id(parameter): start for parameter, start in starts}
        self._flat_P = policy.flat[: policy.num_params]
        # Networks of equal sizes are one stack.
        alike = sizes(actor) == sizes(critic)
        self.stacks = [
            Stack(c, places) for c in ([(actor, critic)] if alike else [(actor,), (critic,)])
        ]
        own = actor.std_parameter
        self.num_own = 0 if own is None else own.numel()
        own_index = torch.arange(self.num_own) + (0 if own is None else places[id(own)])
        index_S = torch.cat([*(stack.index_S for stack in self.stacks), own_index])
        known = index_S >= 0
        self._index_S = index_S.clamp(min=0)  # what no parameter stands for is never used
        self._place_P = torch.full_like(self._flat_P, -1, dtype=torch.int64)
        self._place_P[index_S[known]] = torch.arange(len(index_S))[known]
        self.weights_S, self.gradient_S = torch.zeros(len(index_S)), torch.zeros(len(index_S))
        self._gradient_P = torch.zeros_like(self._flat_P)
        parts = self._gradient_P.split([p.numel() for p in self._parameters])
        self._gradients = [g.view_as(p) for g, p in zip(parts, self._parameters, strict=True)]
        self._fixed_DN = torch.empty(0, 0)
        self._minibatches: dict[int, Minibatch] = {}  # by M
        self._is_first = True

    @property
    def is_whole(self) -> bool:
        """Whether each of the policy's parameters is one of these networks' or the loss's own."""
        return bool((self._place_P >= 0).all())

    @torch.no_grad()
    def begin(
        self, samples: Mapping[str, torch.Tensor], actor: ActorSamples, critic: CriticSamples
    ) -> None:
        """Take an update's N samples: statistics stay what they are, so inputs are normalised once.

        Args:
            samples: Obs group -> [N, ...].
            actor: The actor's fixed part.
            critic: The critic's.
        """
        of_critic = torch.stack([critic.target_M, critic.proximal_value_M])
        of_networks = inputs(self.actor, samples), inputs(self.critic, samples)
        self._fixed_DN = torch.cat([*of_networks, self.loss.rows(actor), of_critic])
        self._is_first = True

    @torch.no_grad()
    def gradients(
        self, rows: torch.Tensor, apart: bool
    ) -> tuple[ActorLoss, torch.Tensor, list[torch.Tensor]]:
        """Return the actor's loss, the critic's, and all gradients, of a minibatch.

        They are the same tensors each time.

        Args:
            rows: Indices of the samples.
            apart: Whether each parameter's gradient is a tensor; else they are one vector.
        """
        M = rows.shape[0]
        if (minibatch := self._minibatches.get(M)) is None:
            minibatch = self._minibatches[M] = Minibatch(self, self._fixed_DN.shape[0], M)
        torch.index_select(self._flat_P, 0, self._index_S, out=self.weights_S)
        torch.index_select(self._fixed_DN, 1, rows, out=minibatch.fixed_DM)
        loss, value = minibatch.run()
        if self._is_first:  # its policy is the proximal one, and what KL there is is rounding
            loss.kl.zero_()
            self._is_first = False
        torch.index_select(self.gradient_S, 0, self._place_P, out=self._gradient_P)
        return loss, value, self._gradients if apart else [self._gradient_P]


class Minibatch:
    """M samples, and room for all that comes of them."""

    def __init__(self, of: ByHand, num_rows: int, M: int) -> None:
        """Make room.

        Args:
            of: Whose weights are used, and whose gradient is filled.
            num_rows: D.
            M: Samples.
        """
        self.fixed_DM = torch.empty(num_rows, M)
        self._passes, row, start = [], 0, 0
        for stack in of.stacks:
            x_KIM = self.fixed_DM[row : row + stack.rows].view(stack.num_chains, -1, M)
            row, end = row + stack.rows, start + len(stack.index_S)
            weights, gradient = of.weights_S[start:end], of.gradient_S[start:end]
            self._passes.append(stack.on(weights, gradient, x_KIM))
            start = end
        R, actor, critic = of.loss.num_summed + 1, self._passes[0], self._passes[-1]
        self._summed_RM, self._mean_R = torch.empty(R, M), torch.empty(R)
        self._share = torch.tensor(1.0 / max(M, 1))
        place = Place(
            self.fixed_DM[row:-2],
            actor.output_KOM[0, : of.loss.num_outputs],
            actor.slope_KOM[0, : of.loss.num_outputs],
            self._summed_RM[:-1],
            self._mean_R[:-1],
            of.gradient_S[start:],
        )
        self._actor = of.loss.at(place)
        self._critic = ValueMinibatch(
            of.ppo,
            self.fixed_DM[-2:],
            critic.output_KOM[-1, :1],
            critic.slope_KOM[-1, :1],
            self._summed_RM[-1:],
        )
        self._entropy_coef = of.ppo.entropy_coef
        self._numbers_5 = torch.zeros(5)
        self._loss, self._value = ActorLoss(*self._numbers_5), self._mean_R[-1]

    def run(self) -> tuple[ActorLoss, torch.Tensor]:
        """Fill the gradient for the samples and weights as they are now; returns both losses."""
        for of_stack in self._passes:
            of_stack.forward()
        self._actor.run()
        self._critic.run()
        torch.sum(self._summed_RM, 1, out=self._mean_R).mul_(self._share)
        surrogate, entropy, kl, clip_fraction = self._actor.numbers()
        total = surrogate - self._entropy_coef * entropy
        self._numbers_5.copy_(torch.tensor([total, surrogate, entropy, kl, clip_fraction]))
        for of_stack in self._passes:
            of_stack.backward()
        return self._loss, self._value


def by_hand(ppo: PPOConfig, policy: Policy) -> ByHand | None:
    """Return what computes a policy's gradients by hand; None where no formulas are known.

    They are for an actor and a critic that are chains, and nothing else, and our distributions.
    """
    if ppo.normalize_advantages_per_mini_batch or ppo.symmetry.use_data_augmentation:
        return None
    actor, critic, distribution = policy.chain(), policy.critic_chain(), policy.distribution
    if actor is None or critic is None or sizes(actor) is None or sizes(critic) is None:
        return None
    std = actor.std_parameter
    if isinstance(distribution, Gaussian) and std is not None:
        loss: ActorByHand = GaussianLoss(ppo, distribution, actor.std, std)
    elif isinstance(distribution, Categorical) and std is None:
        loss = CategoricalLoss(ppo, distribution)
    else:
        return None
    found = ByHand(ppo, policy, actor, critic, loss)
    return found if found.is_whole else None
