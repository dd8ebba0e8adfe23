"""The actor's loss and its gradient, written out for each distribution. Runs in the learner.

Each is `losses.actor_loss` of a minibatch, with as few operations as it takes.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch.nn import functional as F

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.ppo.losses import ActorLoss, ActorSamples
from isaac_hydra_ext.models.distributions import Categorical, Gaussian, log_tanh_slope

Found = tuple[ActorLoss, torch.Tensor, list[torch.Tensor]]


class ActorByHand(Protocol):
    """A distribution's part of the gradients."""

    def columns(self, samples: ActorSamples) -> Sequence[torch.Tensor]:
        """Return what is fixed during an update, [N, ...] each, float32."""
        ...

    def loss_and_gradients(self, output_MP: torch.Tensor, fixed: Sequence[torch.Tensor]) -> Found:
        """Compute a minibatch.

        Args:
            output_MP: Of the actor's last layer.
            fixed: The minibatch's `columns`.

        Returns:
            The loss, the gradient of the output, and those of parameters of its own.
        """
        ...


class Surrogate:
    """The clipped surrogate of M samples and its slope, the same for every distribution."""

    def __init__(
        self, clip: float, ratio_M1: torch.Tensor, weighted_advantage_M1: torch.Tensor
    ) -> None:
        """Compute it from `weight * advantage`: the weight is never negative."""
        clipped = ratio_M1.clamp(1.0 - clip, 1.0 + clip)
        gain, clipped_gain = ratio_M1 * weighted_advantage_M1, clipped * weighted_advantage_M1
        self.loss = torch.minimum(gain, clipped_gain).mean().neg_()
        self.clip_fraction = (clipped != ratio_M1).to(torch.float32).mean()
        # Of -M times the loss, for the log-prob: the smaller gain counts, a clipped one is flat.
        self.slope_M1 = gain.mul_(gain <= clipped_gain)


class GaussianLoss:
    """For a Gaussian whose std [A] depends on no observation."""

    def __init__(
        self,
        ppo: PPOConfig,
        distribution: Gaussian,
        std: Callable[[], torch.Tensor | None],
        parameter: torch.Tensor,
    ) -> None:
        """Read the std where it lies; `parameter` is what it is computed from."""
        self._ppo, self._squash, self._distribution = ppo, distribution.squash, distribution
        self._current_std, self._parameter = std, parameter
        self._proximal_std = self._proximal_log_std = torch.empty(0)

    def columns(self, samples: ActorSamples) -> Sequence[torch.Tensor]:
        mean, std = samples.proximal_params_MP.chunk(2, dim=1)
        self._proximal_std = std[0].clone()
        self._proximal_log_std = self._proximal_std.log()
        advantage = (samples.weight_M * samples.advantage_M).unsqueeze(1)
        # log p = -|z|^2 / 2 - sum(log std) + what no parameter changes: that cancels in the ratio.
        z = (samples.action_MA - mean) / std
        before = z.square().sum(1, keepdim=True).mul_(0.5).add_(self._proximal_log_std.sum())
        noise = [] if samples.entropy_noise_MP is None else [samples.entropy_noise_MP]
        return [samples.action_MA, mean, before, advantage, *noise]

    def loss_and_gradients(self, output_MP: torch.Tensor, fixed: Sequence[torch.Tensor]) -> Found:
        action, proximal_mean, before, advantage, *noise = fixed
        M, entropy_coef = output_MP.shape[0], self._ppo.entropy_coef
        with torch.enable_grad():
            live_std = self._current_std()
        assert live_std is not None
        std = live_std.detach()
        log_std, inverse = std.log(), std.reciprocal()
        log_std_sum = log_std.sum()

        z = (action - output_MP).mul_(inverse)
        square = z * z
        ratio = torch.sub(before - log_std_sum, square.sum(1, keepdim=True), alpha=0.5).exp_()
        surrogate = Surrogate(self._ppo.clip, ratio, advantage)
        slope = surrogate.slope_M1
        of_mean = (z * slope).mul_(inverse * (-1.0 / M))
        of_std = (torch.mm(slope.t(), square)[0] - slope.sum()).mul_(-1.0 / M).sub_(entropy_coef)
        of_std.mul_(inverse)

        entropy = log_std_sum + self._distribution.entropy_constant
        if self._squash:
            sample = torch.addcmul(output_MP, std, noise[0])
            entropy = entropy + log_tanh_slope(sample).sum(1).mean()
            # The slope of log(1 - tanh(x)^2) is -2 tanh(x).
            of_sample = torch.tanh(sample).mul_(2.0 * entropy_coef / M)
            of_mean.add_(of_sample)
            of_std.add_((of_sample * noise[0]).sum(0))
        of_parameter = torch.autograd.grad(live_std, self._parameter, of_std)

        moved = (proximal_mean - output_MP).square_().mean(0).add_(self._proximal_std.square())
        kl = (moved.mul_(inverse.square()).mul_(0.5) + log_std - self._proximal_log_std - 0.5).sum()
        total = surrogate.loss - entropy_coef * entropy
        loss = ActorLoss(total, surrogate.loss, entropy, kl, surrogate.clip_fraction)
        return loss, of_mean, [*of_parameter]


class CategoricalLoss:
    """For independent choices."""

    def __init__(self, ppo: PPOConfig, distribution: Categorical) -> None:
        """Read how many choices there are."""
        self._ppo, self._nvec = ppo, distribution.nvec

    def columns(self, samples: ActorSamples) -> Sequence[torch.Tensor]:
        log_p = [F.log_softmax(x, -1) for x in samples.proximal_params_MP.split(self._nvec, dim=1)]
        chosen = samples.action_MA.unbind(-1)
        picks = [F.one_hot(a, n).to(torch.float32) for a, n in zip(chosen, self._nvec, strict=True)]
        advantage = (samples.weight_M * samples.advantage_M).unsqueeze(1)
        before = samples.proximal_log_prob_M.unsqueeze(1)
        return [torch.cat(log_p, dim=1), torch.cat(picks, dim=1), before, advantage]

    def loss_and_gradients(self, output_MP: torch.Tensor, fixed: Sequence[torch.Tensor]) -> Found:
        proximal_log_p, picked, before, advantage = fixed
        M, entropy_coef = output_MP.shape[0], self._ppo.entropy_coef
        parts = [F.log_softmax(x, -1) for x in output_MP.split(self._nvec, dim=1)]
        log_p = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        p = log_p.exp()
        weighted = p * log_p  # minus the entropy, choice by choice

        ratio = (log_p * picked).sum(1, keepdim=True).sub_(before).exp_()
        surrogate = Surrogate(self._ppo.clip, ratio, advantage)
        entropy = weighted.sum().mul_(-1.0 / M)
        sums = [x.sum(1, keepdim=True).expand_as(x) for x in weighted.split(self._nvec, dim=1)]
        own = sums[0] if len(sums) == 1 else torch.cat(sums, dim=1)
        of_output = (picked - p).mul_(surrogate.slope_M1).neg_()
        of_output.add_(weighted - p * own, alpha=entropy_coef).mul_(1.0 / M)

        kl = (proximal_log_p.exp() * (proximal_log_p - log_p)).sum().mul_(1.0 / M)
        total = surrogate.loss - entropy_coef * entropy
        loss = ActorLoss(total, surrogate.loss, entropy, kl, surrogate.clip_fraction)
        return loss, of_output, []
