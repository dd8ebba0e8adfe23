"""A minibatch's losses and their gradients of the networks' outputs, written out for each kind.

Runs in the learner's process. Each is what `losses.py` and autograd give, in as few operations as
it takes: samples are columns, results go where there is room for them already, and what a number is
the mean of is a row of one tensor, so that one sum gives them all.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch.nn import functional as F

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.ppo.losses import ActorSamples
from isaac_hydra_ext.models.distributions import Categorical, Gaussian, log_tanh_slope


class Numbers(NamedTuple):
    """Of a minibatch: what `losses.ActorLoss` is made of."""

    surrogate: float
    entropy: float
    kl: float
    clip_fraction: float


class Place(NamedTuple):
    """Where a loss of M samples reads and writes.

    Attributes:
        fixed_FM: The samples' `rows`.
        output_PM: Of the network's last layer.
        slope_PM: The gradient of it.
        summed_RM: Rows that are summed.
        mean_R: Their means, once they are.
        own_K: The gradient of parameters of the loss's own.
    """

    fixed_FM: torch.Tensor
    output_PM: torch.Tensor
    slope_PM: torch.Tensor
    summed_RM: torch.Tensor
    mean_R: torch.Tensor
    own_K: torch.Tensor


class ActorMinibatch(Protocol):
    """The actor's loss at a `Place`."""

    def run(self) -> None:
        """Fill `slope_PM` and `summed_RM`."""
        ...

    def numbers(self) -> Numbers:
        """Fill `own_K`, and return the loss."""
        ...


class ActorByHand(Protocol):
    """A distribution's part of the gradients.

    Attributes:
        num_outputs: P of the actor's last layer.
        num_summed: R.
    """

    num_outputs: int
    num_summed: int

    def rows(self, samples: ActorSamples) -> torch.Tensor:
        """Return what is fixed during an update, float32 [F, N]."""
        ...

    def at(self, place: Place) -> ActorMinibatch:
        """Return what computes minibatches there."""
        ...


class Surrogate:
    """The clipped surrogate of M samples and its slope, the same for every distribution."""

    rows = 3  # that it fills

    def __init__(
        self, clip: float, weighted_advantage_1M: torch.Tensor, rows_3M: torch.Tensor
    ) -> None:
        """Read `weight * advantage`: the weight is never negative."""
        self._low, self._high, self._advantage_1M = 1.0 - clip, 1.0 + clip, weighted_advantage_1M
        self._both_2M, self._gains_2M = (weighted_advantage_1M.repeat(2, 1) for _ in range(2))
        self.ratio_1M, self._clipped_1M = self._both_2M.split(1)
        self._gain_1M, self._clipped_gain_1M = self._gains_2M.split(1)
        self._smaller_1M, self._outside_1M, self.slope_1M = rows_3M.split(1)

    def run(self) -> None:
        """Fill the rows for `ratio_1M`; `slope_1M` is of -M times the loss, for the log-prob."""
        torch.clamp(self.ratio_1M, self._low, self._high, out=self._clipped_1M)
        torch.mul(self._both_2M, self._advantage_1M, out=self._gains_2M)
        torch.minimum(self._gain_1M, self._clipped_gain_1M, out=self._smaller_1M)
        torch.ne(self.ratio_1M, self._clipped_1M, out=self._outside_1M)
        # The smaller gain counts, and a clipped one is flat.
        torch.le(self._gain_1M, self._clipped_gain_1M, out=self.slope_1M).mul_(self._gain_1M)


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
        self.ppo, self.squash, self._std, self.parameter = ppo, distribution.squash, std, parameter
        self.num_outputs = A = distribution.dim
        self.num_summed = Surrogate.rows + (5 if distribution.squash else 3) * A
        self._entropy_constant = distribution.entropy_constant
        self.proximal_std_A, self.proximal_entropy = torch.ones(A), 0.0

    def current_std(self) -> torch.Tensor:
        """Return the std [A] as a function of the parameter."""
        with torch.enable_grad():
            std = self._std()
        assert std is not None
        return std

    def rows(self, samples: ActorSamples) -> torch.Tensor:
        mean, std = samples.proximal_params_MP.chunk(2, dim=1)
        self.proximal_std_A = std[0].clone()
        self.proximal_entropy = float(std[0].log().sum() + self._entropy_constant)
        # log p = -|z|^2 / 2 - sum(log std) + what no parameter changes: that cancels in the ratio.
        before = ((samples.action_MA - mean) / std).square().sum(1).mul_(0.5)
        advantage = samples.weight_M * samples.advantage_M
        noise = [] if samples.entropy_noise_MP is None else [samples.entropy_noise_MP.t()]
        return torch.cat(
            [torch.stack([before, advantage]), samples.action_MA.t(), mean.t(), *noise]
        )

    def at(self, place: Place) -> ActorMinibatch:
        return GaussianMinibatch(self, place)


class GaussianMinibatch:
    """Its loss at a place."""

    def __init__(self, loss: GaussianLoss, place: Place) -> None:
        """Make room."""
        A, M = place.output_PM.shape
        self._loss, self._place, self._M = loss, place, max(M, 1)
        # Actions and the means of before are both compared with the means of now.
        two, self._targets_2AM = place.fixed_FM[:2], place.fixed_FM[2 : 2 + 2 * A].view(2, A, M)
        self._before_1M, advantage_1M = two.split(1)
        self._noise_AM = place.fixed_FM[2 + 2 * A :]
        surrogate_3M, own_RM = place.summed_RM[: Surrogate.rows], place.summed_RM[Surrogate.rows :]
        self._surrogate = Surrogate(loss.ppo.clip, advantage_1M, surrogate_3M)
        self._squares_2AM, self._squashed_RM = own_RM[: 2 * A].view(2, A, M), own_RM[3 * A :]
        self._squares_AM, self._weighted_AM = self._squares_2AM[0], own_RM[2 * A : 3 * A]
        self._mean_slope, self._means = place.mean_R[2], place.mean_R[Surrogate.rows :].split(A)
        self._z_2AM, self._ratios_2A = torch.empty(2, A, M), torch.ones(2, A)
        self._std_ratio_A, self._log_ratio_A = self._ratios_2A
        self._z_AM, self._inverse_A1 = self._z_2AM[0], torch.ones(A, 1)
        self._inverse_A, self._scale_A1 = self._inverse_A1.view(A), torch.ones(A, 1)
        self._minus_share = torch.tensor(-1.0 / self._M)
        self._entropy_coef = torch.tensor(loss.ppo.entropy_coef)

    def run(self) -> None:
        place, inverse_A1, z_2AM = self._place, self._inverse_A1, self._z_2AM
        surrogate, ratio_1M = self._surrogate, self._surrogate.ratio_1M
        std_A = self._loss.current_std().detach()
        torch.reciprocal(std_A, out=self._inverse_A)
        torch.mul(self._inverse_A, self._loss.proximal_std_A, out=self._std_ratio_A)
        torch.log(self._std_ratio_A, out=self._log_ratio_A)

        torch.sub(self._targets_2AM, place.output_PM, out=z_2AM).mul_(inverse_A1)
        torch.mul(z_2AM, z_2AM, out=self._squares_2AM)
        torch.sum(self._squares_AM, 0, keepdim=True, out=ratio_1M)
        torch.sub(self._before_1M, ratio_1M, alpha=0.5, out=ratio_1M)
        ratio_1M.add_(self._log_ratio_A.sum()).exp_()
        surrogate.run()
        torch.mul(self._squares_AM, surrogate.slope_1M, out=self._weighted_AM)
        torch.mul(self._z_AM, surrogate.slope_1M, out=place.slope_PM)
        place.slope_PM.mul_(torch.mul(inverse_A1, self._minus_share, out=self._scale_A1))
        if self._loss.squash:
            self._squash(std_A.unsqueeze(1))

    def _squash(self, std_A1: torch.Tensor) -> None:
        """Add the part of the entropy that is estimated from samples."""
        place, (log_slope_AM, of_std_AM) = self._place, self._squashed_RM.chunk(2)
        sample_AM = torch.addcmul(place.output_PM, std_A1, self._noise_AM)
        log_slope_AM.copy_(log_tanh_slope(sample_AM))
        # The slope of log(1 - tanh(x)^2) is -2 tanh(x).
        of_sample_AM = sample_AM.tanh_()
        torch.mul(of_sample_AM, self._noise_AM, out=of_std_AM)
        place.slope_PM.add_(of_sample_AM, alpha=2.0 * self._loss.ppo.entropy_coef / self._M)

    def numbers(self) -> Numbers:
        loss, of_std_A = self._loss, self._place.own_K
        _, _, weighted_A, *squashed = self._means
        torch.sub(self._mean_slope, weighted_A, out=of_std_A)
        of_std_A.sub_(self._entropy_coef).mul_(self._inverse_A)
        if squashed:
            of_std_A.add_(squashed[1], alpha=2.0 * loss.ppo.entropy_coef)
        if (std := loss.current_std()) is not loss.parameter:
            of_std_A.copy_(torch.autograd.grad(std, loss.parameter, of_std_A)[0])
        A, (gain, outside, _, *means) = len(of_std_A), self._place.mean_R.tolist()
        ratios, logs = self._ratios_2A.tolist()
        kl = 0.5 * sum(means[A : 2 * A] + [x * x - 1.0 for x in ratios]) - sum(logs)
        entropy = loss.proximal_entropy - sum(logs) + sum(means[3 * A : 4 * A])
        return Numbers(-gain, entropy, kl, outside)


class CategoricalLoss:
    """For independent choices."""

    def __init__(self, ppo: PPOConfig, distribution: Categorical) -> None:
        """Read how many choices there are."""
        self.ppo, self.nvec = ppo, distribution.nvec
        self.num_outputs = P = distribution.num_params
        self.num_summed = Surrogate.rows + 2 * P

    def rows(self, samples: ActorSamples) -> torch.Tensor:
        log_p = [F.log_softmax(x, -1) for x in samples.proximal_params_MP.split(self.nvec, dim=1)]
        chosen = samples.action_MA.unbind(-1)
        picked = [F.one_hot(a, n).to(torch.float32) for a, n in zip(chosen, self.nvec, strict=True)]
        advantage = samples.weight_M * samples.advantage_M
        before = torch.stack([samples.proximal_log_prob_M, advantage])
        of_choices = (*picked, *log_p, *(x.exp() for x in log_p))
        return torch.cat([before, *(x.t() for x in of_choices)])

    def at(self, place: Place) -> ActorMinibatch:
        return CategoricalMinibatch(self, place)


class CategoricalMinibatch:
    """Its loss at a place."""

    def __init__(self, loss: CategoricalLoss, place: Place) -> None:
        """Make room."""
        P, M = place.output_PM.shape
        self._place, self._P, self._entropy_coef = place, P, loss.ppo.entropy_coef
        fixed = place.fixed_FM.split([1, 1, P, P, P])
        self._before_1M, advantage_1M, self._picked_PM, self._log_old_PM, self._old_PM = fixed
        summed = place.summed_RM.split([Surrogate.rows, P, P])
        surrogate_3M, self._p_log_p_PM, self._distance_PM = summed
        self._surrogate = Surrogate(loss.ppo.clip, advantage_1M, surrogate_3M)
        self._log_p_PM, self._p_PM, self._of_entropy_PM = (torch.empty(P, M) for _ in range(3))
        of_choices = (self._log_p_PM, self._p_PM, self._p_log_p_PM, self._of_entropy_PM)
        parts = (x.split(loss.nvec) for x in (place.output_PM, *of_choices))
        self._choices = [*zip(*parts, strict=True)]
        self._sum_1M, self._minus_share = torch.empty(1, M), torch.tensor(-1.0 / max(M, 1))

    def run(self) -> None:
        surrogate, slope_PM, p_log_p_PM = self._surrogate, self._place.slope_PM, self._p_log_p_PM
        for output, log_p, *_ in self._choices:
            torch.log_softmax(output, 0, out=log_p)
        torch.exp(self._log_p_PM, out=self._p_PM)
        torch.mul(self._p_PM, self._log_p_PM, out=p_log_p_PM)
        for _, _, p, p_log_p, of_entropy in self._choices:
            torch.sum(p_log_p, 0, keepdim=True, out=self._sum_1M)
            torch.addcmul(p_log_p, p, self._sum_1M, value=-1.0, out=of_entropy)

        torch.mul(self._log_p_PM, self._picked_PM, out=slope_PM)
        torch.sum(slope_PM, 0, keepdim=True, out=surrogate.ratio_1M)
        surrogate.ratio_1M.sub_(self._before_1M).exp_()
        surrogate.run()
        torch.sub(self._picked_PM, self._p_PM, out=slope_PM).mul_(surrogate.slope_1M)
        slope_PM.sub_(self._of_entropy_PM, alpha=self._entropy_coef).mul_(self._minus_share)
        torch.sub(self._log_old_PM, self._log_p_PM, out=self._distance_PM).mul_(self._old_PM)

    def numbers(self) -> Numbers:
        gain, outside, _, *means = self._place.mean_R.tolist()
        minus_entropy, kl = sum(means[: self._P]), sum(means[self._P :])
        return Numbers(-gain, -minus_entropy, kl, outside)


class ValueMinibatch:
    """The critic's loss of M samples."""

    def __init__(
        self,
        ppo: PPOConfig,
        fixed_2M: torch.Tensor,
        output_1M: torch.Tensor,
        slope_1M: torch.Tensor,
        summed_1M: torch.Tensor,
    ) -> None:
        """Make room.

        Args:
            ppo: value_clip and value_coef are read.
            fixed_2M: Targets, and the critic's output at the start of the iteration.
            output_1M: Of the critic.
            slope_1M: The gradient of it.
            summed_1M: Squared errors.
        """
        self._clip, self._fixed_2M, self._output_1M = ppo.value_clip, fixed_2M, output_1M
        self._slope_1M, self._square_1M = slope_1M, summed_1M
        self._scale = torch.tensor(2.0 * ppo.value_coef / max(output_1M.shape[1], 1))
        self._errors_2M, self._squares_2M = torch.empty_like(fixed_2M), torch.empty_like(fixed_2M)
        self._error_1M, self._clipped_1M = self._errors_2M.split(1)
        self._own_square_1M, self._clipped_square_1M = self._squares_2M.split(1)
        self._kept_1M = torch.empty_like(summed_1M)

    def run(self) -> None:
        """Fill the slope and the squares."""
        torch.sub(self._output_1M, self._fixed_2M, out=self._errors_2M)
        if (clip := self._clip) is None:
            torch.mul(self._error_1M, self._error_1M, out=self._square_1M)
            torch.mul(self._error_1M, self._scale, out=self._slope_1M)
            return
        # From how far the value has moved to the error if it had moved by at most `clip`.
        torch.clamp(self._clipped_1M, -clip, clip, out=self._kept_1M)
        self._kept_1M.sub_(self._clipped_1M)
        torch.add(self._kept_1M, self._error_1M, out=self._clipped_1M)
        torch.mul(self._errors_2M, self._errors_2M, out=self._squares_2M)
        torch.maximum(self._own_square_1M, self._clipped_square_1M, out=self._square_1M)
        # The larger of the two counts, and a clipped one has no slope.
        torch.ge(self._own_square_1M, self._clipped_square_1M, out=self._kept_1M)
        torch.mul(self._error_1M, self._kept_1M, out=self._slope_1M).mul_(self._scale)
