"""Beta against torch.distributions and integration."""

import math

import pytest
import torch
from torch import distributions as td
from torch.nn import functional as F

from isaac_hydra_ext.models.beta import LARGEST, TRIES, Beta

from ..builders import continuous

INF = math.inf
OURS = Beta(continuous((-2.0, 4.0), (0.0, 1.0)))


def raw(rows: int = 64) -> torch.Tensor:
    return 3 * torch.randn(rows, 4, generator=torch.Generator().manual_seed(3)).double()


def theirs(params: torch.Tensor) -> td.TransformedDistribution:
    base = td.Beta(*(1 + F.softplus(params)).chunk(2, dim=-1))
    return td.TransformedDistribution(base, td.AffineTransform(-1.0, 2.0))


def test_log_prob_entropy_kl_and_std_are_torchs() -> None:
    params, other = raw(), raw().flip(0)
    action = theirs(params).sample().clamp(-LARGEST, LARGEST)
    expected = theirs(params).log_prob(action).sum(-1)
    torch.testing.assert_close(OURS.log_prob(params, action), expected)
    base, changed = theirs(params).base_dist, theirs(other).base_dist
    torch.testing.assert_close(OURS.entropy(params, None), (base.entropy() + math.log(2.0)).sum(-1))
    torch.testing.assert_close(OURS.kl(params, other), td.kl_divergence(base, changed).sum(-1))
    torch.testing.assert_close(OURS.std(params), 2 * base.stddev)
    torch.testing.assert_close(OURS.mode(params), 2 * base.mean - 1)
    assert OURS.kl(params, params).abs().max() == 0


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (-20.0, 3.0), (4.0, -1.0), (30.0, 30.0)])
def test_samples_are_distributed_as_log_prob_says(alpha: float, beta: float) -> None:
    """Their cumulative frequencies are the density's integral, within Kolmogorov's bound."""
    n = 40_000
    ours = Beta(continuous((-1.0, 1.0)))
    params = torch.tensor([alpha, beta]).expand(n, 2)
    noise = ours.draw_noise((n,), torch.Generator().manual_seed(5))
    assert noise.shape == (n, 2 * 2 * TRIES)
    found = ours.sample(params, noise)[:, 0].double().sort().values
    x = torch.linspace(-LARGEST, LARGEST, 200_001, dtype=torch.float64)
    density = ours.log_prob(params[:1].double(), x.unsqueeze(-1)).exp()
    below = torch.cumulative_trapezoid(density, x)
    assert below[-1].item() == pytest.approx(1.0, abs=1e-4)
    index = torch.searchsorted(x, found).clamp(1, len(below)) - 1
    rank = torch.arange(1, n + 1, dtype=torch.float64) / n
    # Exceeded once in 20,000 seeds.
    assert (below[index] - rank).abs().max().item() < 2.3 / math.sqrt(n)


def test_where_every_try_is_refused_the_middle_one_is_taken() -> None:
    ours = Beta(continuous((-1.0, 1.0)))
    refused = torch.cat([torch.full((2 * TRIES,), -9.0), torch.zeros(2 * TRIES)])
    assert ours.sample(torch.zeros(2), refused).tolist() == [0.0]


def test_ends_are_never_reached_and_gradients_stay_finite() -> None:
    ours = Beta(continuous((-1.0, 1.0)))
    params = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    noise = ours.draw_noise((2,), torch.Generator().manual_seed(1))
    action = ours.sample(params, noise).detach()
    assert action.abs().max() <= LARGEST
    numbers = ours.log_prob(params, action) + ours.entropy(params, None)
    (gradient,) = torch.autograd.grad(numbers.sum(), params)
    assert torch.isfinite(numbers).all() and torch.isfinite(gradient).all()


def test_the_envs_copy_is_within_its_bounds_or_within_1_where_it_has_none() -> None:
    ends = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    assert OURS.to_env(ends).tolist() == [[-2.0, 0.0], [4.0, 1.0]]
    open_ended = continuous((-INF, INF), (0.5, INF))
    assert Beta(open_ended).to_env(ends).tolist() == [[-1.0, 0.5], [1.0, 2.5]]
    assert Beta(open_ended, clip=3.0).to_env(ends).tolist() == [[-3.0, 0.5], [3.0, 3.0]]
