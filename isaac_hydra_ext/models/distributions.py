"""Action distributions as pure functions of a parameter tensor. Used by workers and learner alike.

A distribution's parameters are one tensor `params_NP`, so that the learner can keep those of the
proximal policy and compare analytically. Ratios use actions as sampled, before any squashing.
"""

import math
from typing import Protocol

import torch
from torch.nn import functional as F

from isaac_hydra_ext.config.schema import PolicyConfig
from isaac_hydra_ext.envs.contract import ActionSpec
from isaac_hydra_ext.models.bounds import interval, limits

STD_RANGE = (1e-6, 1e6)  # of one that depends on observations, unless it is said; as rsl_rl's
LOG_2PI = math.log(2 * math.pi)


class ActionDistribution(Protocol):
    """What the collector and the loss need of a distribution.

    Attributes:
        num_params: P, of `params_NP`.
        num_outputs: How many of them the actor's network gives.
        action_dtype: Of samples.
    """

    num_params: int
    num_outputs: int
    action_dtype: torch.dtype

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Draw the randomness of samples of batch shape `shape`; on the generator's device."""
        ...

    def sample(self, params: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Turn noise into actions [..., A], before squashing."""
        ...

    def mode(self, params: torch.Tensor) -> torch.Tensor:
        """Return the deterministic action [..., A], before squashing."""
        ...

    def log_prob(self, params: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities [...] of actions as `sample` made them, in nats."""
        ...

    def entropy(self, params: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Return entropies [...] in nats; sampled from `noise` where no closed form exists."""
        ...

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return KL(old || new) [...] in nats."""
        ...

    def std(self, params: torch.Tensor) -> torch.Tensor:
        """Return the std [..., A] of samples; 0 where there is none."""
        ...

    def to_env(self, action: torch.Tensor) -> torch.Tensor:
        """Return the environment's copy of the action: squashed, clipped, scaled."""
        ...


class Gaussian:
    """Diagonal Gaussian; params are [mean, std].

    With `squash=tanh` the env's action is `center + scale * tanh(sample)`: between the bounds where
    both are finite, else on the interval of length 2 within them that is nearest to [-1, 1].
    log_prob then includes the change of variables (SAC, Haarnoja et al. 2018, appendix C); the
    constant of `scale` is left out, as it has no gradient and cancels in every ratio.

    What the env gets lies within its bounds to the last bit, whatever rounding does on the way.
    """

    action_dtype = torch.float32

    def __init__(
        self,
        spec: ActionSpec,
        squash: bool,
        clip: float | None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Read the bounds; `clip` limits the env's copy to +-clip (unsquashed only)."""
        self.num_params, self.num_outputs = 2 * spec.dim, spec.dim
        self.squash = squash
        self.dim = spec.dim
        self.entropy_constant = 0.5 * (1.0 + LOG_2PI) * self.dim
        self.low, self.high = limits(spec, None if squash else clip, device)
        if squash:
            self.center, self.scale = interval(self.low, self.high)

    def moments(self, params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and std [..., A]."""
        mean, std = params.chunk(2, dim=-1)
        return mean, std

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        return torch.randn((*shape, self.dim), generator=generator, device=generator.device)

    def sample(self, params: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        mean, std = self.moments(params)
        return mean + std * noise

    def mode(self, params: torch.Tensor) -> torch.Tensor:
        return params.chunk(2, dim=-1)[0]

    def log_prob(self, params: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        mean, std = self.moments(params)
        z = (action - mean) / std
        log_prob = -(0.5 * z.square() + std.log()).sum(-1) - 0.5 * LOG_2PI * self.dim
        if self.squash:
            log_prob = log_prob - log_tanh_slope(action).sum(-1)
        return log_prob

    def entropy(self, params: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Return it in closed form, unless squashed: then an estimate."""
        std = self.std(params)
        entropy = std.log().sum(-1) + self.entropy_constant
        if self.squash:
            assert noise is not None
            entropy = entropy + log_tanh_slope(self.sample(params, noise)).sum(-1)
        return entropy

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return it in closed form: squashing both sides alike leaves it unchanged."""
        (mean_0, std_0), (mean_1, std_1) = self.moments(old), self.moments(new)
        spread = (std_0.square() + (mean_0 - mean_1).square()) / (2 * std_1.square())
        return (torch.log(std_1 / std_0) + spread - 0.5).sum(-1)

    def std(self, params: torch.Tensor) -> torch.Tensor:
        return self.moments(params)[1]

    def to_env(self, action: torch.Tensor) -> torch.Tensor:
        if self.squash:
            action = self.center + self.scale * torch.tanh(action)
        return torch.clamp(action, self.low, self.high)


class HeteroscedasticGaussian(Gaussian):
    """A Gaussian whose std the actor's network gives too, as rsl_rl's of that name.

    Params are [mean, s]: std is `init_std + s`, or `init_std * exp(s)` with `log`, within its
    range; a network that gives 0 for s begins with `init_std`.
    """

    def __init__(
        self,
        spec: ActionSpec,
        squash: bool,
        clip: float | None,
        device: str | torch.device = "cpu",
        *,
        init_std: float = 1.0,
        std_range: tuple[float, float] = STD_RANGE,
        log: bool = False,
    ) -> None:
        """Take the std's start and range, in the unit of actions as sampled."""
        super().__init__(spec, squash, clip, device)
        self.num_outputs = self.num_params
        self.log = log
        least, most = std_range
        self.start = math.log(init_std) if log else init_std
        self.range = (math.log(least), math.log(most)) if log else (least, most)

    def moments(self, params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, raw = params.chunk(2, dim=-1)
        std = (self.start + raw).clamp(*self.range)
        return mean, std.exp() if self.log else std


def log_tanh_slope(x: torch.Tensor) -> torch.Tensor:
    """Return log(1 - tanh(x)^2), stable for large |x|."""
    return 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))


class Categorical:
    """Independent categorical choices; params are their logits side by side.

    Samples are argmax(logits + Gumbel noise) (Gumbel 1954), so that, as for the Gaussian, all
    randomness is in the noise.
    """

    action_dtype = torch.int64

    def __init__(self, spec: ActionSpec) -> None:
        """Read the number of choices."""
        self.nvec = list(spec.nvec)
        self.num_params = self.num_outputs = sum(self.nvec)

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        size = (*shape, self.num_params)
        exponential = torch.empty(size, device=generator.device).exponential_(generator=generator)
        return -exponential.log()

    def sample(self, params: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.mode(params + noise)

    def mode(self, params: torch.Tensor) -> torch.Tensor:
        if len(self.nvec) == 1:
            return params.argmax(-1, keepdim=True)
        return torch.stack([part.argmax(-1) for part in params.split(self.nvec, dim=-1)], dim=-1)

    def log_prob(self, params: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        choices = zip(params.split(self.nvec, dim=-1), action.unbind(-1), strict=True)
        picked = [F.log_softmax(p, -1).gather(-1, a.unsqueeze(-1))[..., 0] for p, a in choices]
        return torch.stack(picked, dim=-1).sum(-1)

    def entropy(self, params: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Return it in closed form; `noise` is not needed."""
        parts = [F.log_softmax(p, -1) for p in params.split(self.nvec, dim=-1)]
        return torch.stack([-(p.exp() * p).sum(-1) for p in parts], dim=-1).sum(-1)

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        pairs = zip(old.split(self.nvec, dim=-1), new.split(self.nvec, dim=-1), strict=True)
        logs = [(F.log_softmax(p, -1), F.log_softmax(q, -1)) for p, q in pairs]
        return torch.stack([(p.exp() * (p - q)).sum(-1) for p, q in logs], dim=-1).sum(-1)

    def std(self, params: torch.Tensor) -> torch.Tensor:
        return params.new_zeros(*params.shape[:-1], len(self.nvec))

    def to_env(self, action: torch.Tensor) -> torch.Tensor:
        return action


def make_distribution(
    config: PolicyConfig, spec: ActionSpec, device: str | torch.device
) -> ActionDistribution:
    """Choose by the action's kind, and by `policy.distribution` where it is continuous.

    Raises:
        ConfigError: `policy.clip_actions` leaves no action.
    """
    if spec.kind != "continuous":
        return Categorical(spec)
    squash, clip = config.squash == "tanh", config.clip_actions
    if config.distribution == "beta":
        from isaac_hydra_ext.models.beta import Beta

        return Beta(spec, clip, device)
    if config.distribution == "heteroscedastic":
        least, most = config.std_range or STD_RANGE
        return HeteroscedasticGaussian(
            spec,
            squash,
            clip,
            device,
            init_std=config.init_std,
            std_range=(least, most),
            log=config.std_type == "log",
        )
    return Gaussian(spec, squash, clip, device)
