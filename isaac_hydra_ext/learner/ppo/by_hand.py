"""A minibatch's losses and gradients without autograd, for chains of layers on a CPU.

Runs in the learner's process. A minibatch step of a small network is some 50 operations of a few
microseconds each there, and recording them for autograd takes longer than they do. The numbers are
those of `losses.py` and autograd, but for rounding: that code is the reference, and this one is
tested against it.
"""

from collections.abc import Mapping

import torch
from torch import nn

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.ppo.chains import Network
from isaac_hydra_ext.learner.ppo.closed_form import ActorByHand, CategoricalLoss, GaussianLoss
from isaac_hydra_ext.learner.ppo.losses import ActorLoss, ActorSamples, CriticSamples
from isaac_hydra_ext.models.distributions import Categorical, Gaussian
from isaac_hydra_ext.models.policy import Policy


class ByHand:
    """Gradients of both losses for all of a policy's parameters, in its own order.

    What is fixed during an update lies side by side, so that a minibatch is gathered at once.
    """

    def __init__(
        self, ppo: PPOConfig, actor: Network, critic: Network, actor_loss: ActorByHand
    ) -> None:
        """See `by_hand`."""
        self._ppo, self._actor, self._critic, self._loss = ppo, actor, critic, actor_loss
        self._actor_ND = self._critic_ND = torch.empty(0)
        self._widths: list[int] = []

    @torch.no_grad()
    def begin(
        self, inputs: Mapping[str, torch.Tensor], actor: ActorSamples, critic: CriticSamples
    ) -> None:
        """Take an update's N samples: statistics stay what they are, so inputs are normalised once.

        Args:
            inputs: Obs group -> [N, ...].
            actor: The actor's fixed part.
            critic: The critic's.
        """
        columns = [self._actor.input(inputs), *self._loss.columns(actor)]
        self._widths = [column.shape[1] for column in columns]
        self._actor_ND = torch.cat(columns, dim=1)
        fixed = (critic.target_M.unsqueeze(1), critic.proximal_value_M.unsqueeze(1))
        self._critic_ND = torch.cat([self._critic.input(inputs), *fixed], dim=1)

    @torch.no_grad()
    def gradients(self, rows: torch.Tensor) -> tuple[ActorLoss, torch.Tensor, list[torch.Tensor]]:
        """Return the actor's loss, the critic's, and all gradients, of a minibatch."""
        x, *fixed = self._actor_ND.index_select(0, rows).split(self._widths, dim=1)
        loss, of_output, own = self._loss.loss_and_gradients(self._actor.forward(x), fixed)
        of_actor = self._actor.backward(of_output)
        value_loss, of_critic = self._of_critic(self._critic_ND.index_select(0, rows))
        return loss, value_loss, [*own, *of_actor, *of_critic]

    def _of_critic(self, batch_MD: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return `losses.critic_loss` and its gradients."""
        M, width, clip = batch_MD.shape[0], batch_MD.shape[1] - 2, self._ppo.value_clip
        x, target, before = batch_MD.split([width, 1, 1], dim=1)
        value = self._critic.forward(x)
        error = value - target
        square = error * error
        if clip is not None:
            move = value - before
            inside = move.clamp(-clip, clip)
            clipped = (inside + before).sub_(target)
            clipped.mul_(clipped)
            # The larger of the two counts, and a clipped one has no slope.
            counts = (square >= clipped).logical_or_(inside == move)
            square = torch.maximum(square, clipped)
            error.mul_(counts)
        error.mul_(2.0 * self._ppo.value_coef / M)
        return square.mean(), self._critic.backward(error)


def by_hand(ppo: PPOConfig, policy: Policy) -> ByHand | None:
    """Return what computes a policy's gradients by hand; None where no formulas are known.

    They are for an actor and a critic that are chains, and nothing else, and our distributions.
    """
    if ppo.normalize_advantages_per_mini_batch:
        return None
    actor, critic, distribution = policy.chain(), policy.critic_chain(), policy.distribution
    if actor is None or critic is None:
        return None
    networks, std = (Network(actor), Network(critic)), actor.std_parameter
    if isinstance(distribution, Gaussian) and std is not None:
        loss: ActorByHand = GaussianLoss(ppo, distribution, actor.std, std)
    elif isinstance(distribution, Categorical) and std is None:
        loss = CategoricalLoss(ppo, distribution)
    else:
        return None
    ours = [*([] if std is None else [std]), *networks[0].parameters, *networks[1].parameters]
    groups = policy.parameter_groups()
    return (
        ByHand(ppo, *networks, loss) if _same(ours, [*groups["actor"], *groups["critic"]]) else None
    )


def _same(some: list[nn.Parameter], others: list[nn.Parameter]) -> bool:
    return [id(p) for p in some] == [id(p) for p in others]
