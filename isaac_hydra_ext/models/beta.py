"""A Beta distribution of bounded actions. Used by workers and learner alike."""

import math

import torch
from torch.nn import functional as F

from isaac_hydra_ext.envs.contract import ActionSpec
from isaac_hydra_ext.models.bounds import interval, limits

# Of which each is taken in at least 95 of 100 cases: with all refused, once in 180,000 draws at
# most, the middle one stands for them.
TRIES = 4
LARGEST = 1.0 - 2e-6  # |action|: at the ends of the interval log-probs are infinite


class Beta:
    """Independent Beta(alpha, beta), stretched to [-1, 1] (Chou et al. 2017, section 5).

    Params are raw: alpha = 1 + softplus of the first half, beta of the second, so that each has one
    peak. Actions, log-probs and entropies are those on [-1, 1]; the env's copy is mapped onto its
    bounds, or onto +-1 where it has none.
    """

    action_dtype = torch.float32

    def __init__(
        self, spec: ActionSpec, clip: float | None = None, device: str | torch.device = "cpu"
    ) -> None:
        """Read the bounds; `clip` narrows them to +-clip."""
        self.dim = spec.dim
        self.num_params = self.num_outputs = 2 * spec.dim
        self.low, self.high = limits(spec, clip, device)
        self.center, self.scale = interval(self.low, self.high)

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Draw all that `sample` may need, as how much it needs depends on the parameters."""
        size, device = (*shape, self.num_params * TRIES), generator.device
        normal = torch.randn(size, generator=generator, device=device)
        exponential = torch.empty(size, device=device).exponential_(generator=generator)
        return torch.cat([normal, exponential], dim=-1)

    def sample(self, params: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return (a - b) / (a + b) of gamma variates a and b (Marsaglia and Tsang 2000)."""
        shape = (2, self.num_params, TRIES)
        normal, exponential = noise.unflatten(-1, shape).unbind(-3)
        d = (F.softplus(params) + 2.0 / 3.0).unsqueeze(-1)  # alpha - 1 / 3
        v = (1.0 + normal / (9.0 * d).sqrt()).pow(3)
        within = exponential > d * (v - 1.0 - v.log()) - 0.5 * normal.square()  # NaN: it is not
        first = within.to(torch.uint8).argmax(-1, keepdim=True)
        taken = torch.where(within, v, 1.0).gather(-1, first)
        a, b = (d * taken).squeeze(-1).chunk(2, dim=-1)
        return ((a - b) / (a + b)).clamp(-LARGEST, LARGEST)

    def mode(self, params: torch.Tensor) -> torch.Tensor:
        """Return the mean, as rsl_rl does: a flat distribution's peak may lie anywhere."""
        alpha, beta = self.concentrations(params)
        return (alpha - beta) / (alpha + beta)

    def log_prob(self, params: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        alpha, beta = self.concentrations(params)
        from_ends = (alpha - 1.0) * torch.log1p(action) + (beta - 1.0) * torch.log1p(-action)
        # 2^(alpha + beta - 1): of stretching to twice the length
        stretched = (alpha + beta - 1.0) * math.log(2.0)
        return (from_ends - stretched - _log_beta(alpha, beta)).sum(-1)

    def entropy(self, params: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Return it in closed form; `noise` is not needed."""
        alpha, beta = self.concentrations(params)
        both = alpha + beta
        return (
            _log_beta(alpha, beta)
            + math.log(2.0)
            + (both - 2.0) * torch.digamma(both)
            - (alpha - 1.0) * torch.digamma(alpha)
            - (beta - 1.0) * torch.digamma(beta)
        ).sum(-1)

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return it in closed form: stretching both sides alike leaves it unchanged."""
        (a_0, b_0), (a_1, b_1) = self.concentrations(old), self.concentrations(new)
        moved_a, moved_b = a_0 - a_1, b_0 - b_1
        return (
            _log_beta(a_1, b_1)
            - _log_beta(a_0, b_0)
            + moved_a * torch.digamma(a_0)
            + moved_b * torch.digamma(b_0)
            - (moved_a + moved_b) * torch.digamma(a_0 + b_0)
        ).sum(-1)

    def std(self, params: torch.Tensor) -> torch.Tensor:
        alpha, beta = self.concentrations(params)
        both = alpha + beta
        return 2.0 / both * (alpha * beta / (both + 1.0)).sqrt()

    def to_env(self, action: torch.Tensor) -> torch.Tensor:
        return torch.clamp(self.center + self.scale * action, self.low, self.high)

    def concentrations(self, params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return alpha and beta [..., A]."""
        alpha, beta = (F.softplus(params) + 1.0).chunk(2, dim=-1)
        return alpha, beta


def _log_beta(alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    return torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
