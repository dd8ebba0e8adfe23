"""Action distributions against torch.distributions, integration and counting."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as td

from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.envs.contract import ActionSpec
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models.beta import Beta
from isaac_hydra_ext.models.distributions import (
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    make_distribution,
)

from ..builders import continuous, discrete

INF = math.inf
UNBOUNDED = continuous((-INF, INF), (-INF, INF))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def gaussian_params(rows: int = 64, dim: int = 2) -> torch.Tensor:
    g = generator()
    mean = torch.randn(rows, dim, generator=g)
    return torch.cat([mean, 0.1 + 2 * torch.rand(rows, dim, generator=g)], dim=-1)


def reference(params: torch.Tensor) -> td.Independent:
    return td.Independent(td.Normal(*params.chunk(2, dim=-1)), 1)


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------ Gaussian


def test_gaussian_log_prob_entropy_and_kl_are_torchs() -> None:
    ours, params = Gaussian(UNBOUNDED, False, None), gaussian_params()
    other = params.flip(0)
    action = torch.randn(64, 2, generator=generator())
    close(ours.log_prob(params, action), reference(params).log_prob(action))
    close(ours.entropy(params, None), reference(params).entropy())
    close(ours.kl(params, other), td.kl_divergence(reference(params), reference(other)))


def test_gaussian_kl_of_equals_is_exactly_zero() -> None:
    params = gaussian_params()
    assert Gaussian(UNBOUNDED, False, None).kl(params, params).abs().max() == 0


def test_gaussian_samples_are_mean_plus_std_times_noise() -> None:
    ours = Gaussian(UNBOUNDED, False, None)
    params, noise = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([2.0, -1.0])
    assert ours.sample(params, noise).tolist() == [1 + 0.5 * 2, -2 - 3.0]
    assert ours.mode(params).tolist() == [1.0, -2.0]


def test_a_clip_that_leaves_no_action_is_refused() -> None:
    spec = ActionSpec("continuous", 1, (2.0,), (5.0,))
    with pytest.raises(ConfigError, match=r"policy.clip_actions=1: no action within \+-1 is one"):
        Gaussian(spec, False, 1.0)
    assert Gaussian(spec, False, 3.0).to_env(torch.tensor([9.0])).tolist() == [3.0]


def test_noise_has_the_batch_shape_and_the_actions_size_and_follows_its_generator() -> None:
    ours = Gaussian(UNBOUNDED, False, None)
    a, b = (ours.draw_noise((3, 5), generator()) for _ in range(2))
    assert a.shape == (3, 5, 2)
    assert torch.equal(a, b)


def test_unsquashed_actions_are_clipped_to_bounds_in_the_envs_copy_only() -> None:
    ours = Gaussian(continuous((-1.0, 2.0), (-INF, INF)), False, None)
    action = torch.tensor([[3.0, 1e6], [-3.0, -1e6], [0.5, 0.25]])
    kept = action.clone()
    assert ours.to_env(action).tolist() == [[2.0, 1e6], [-1.0, -1e6], [0.5, 0.25]]
    assert torch.equal(action, kept)


def test_clip_actions_narrows_the_bounds_and_never_widens_them() -> None:
    ours = Gaussian(continuous((-1.0, 9.0), (-INF, INF)), False, 3.0)
    action = torch.tensor([[5.0, 5.0], [-5.0, -5.0]])
    assert ours.to_env(action).tolist() == [[3.0, 3.0], [-1.0, -3.0]]


# ------------------------------------------------------------------ tanh


def squashed(*bounds: tuple[float, float]) -> Gaussian:
    return Gaussian(continuous(*bounds), True, None)


def test_tanh_log_prob_is_the_transformed_distributions_up_to_the_scale() -> None:
    # a = 1 + 3 * tanh(x): log|da/dx| = log 3 + log tanh'(x); ours leaves out the log 3 of each.
    ours, params = squashed((-2.0, 4.0), (-2.0, 4.0)), gaussian_params()
    x = ours.sample(params, ours.draw_noise((64,), generator())).double()
    chain = [td.TanhTransform(), td.AffineTransform(1.0, 3.0)]
    theirs = td.TransformedDistribution(td.Normal(*params.double().chunk(2, dim=-1)), chain)
    mapped = x
    for step in chain:
        mapped = step(mapped)
    expected = sum(theirs.base_dist.log_prob(x).unbind(-1))
    for before, step in zip((x, torch.tanh(x)), chain, strict=True):
        expected = expected - step.log_abs_det_jacobian(before, step(before)).sum(-1)
    close(ours.to_env(x), mapped, 1e-12)
    close(ours.log_prob(params.double(), x) - 2 * math.log(3.0), expected, 1e-9)
    inside = (x.abs() < 4).all(-1)  # where inverting tanh loses no digits
    close(theirs.log_prob(mapped).sum(-1)[inside], expected[inside], 1e-6)


def test_tanh_maps_onto_finite_bounds() -> None:
    ours = squashed((-2.0, 4.0), (0.0, 1.0))
    action = torch.tensor([[-50.0, -50.0], [0.0, 0.0], [50.0, 50.0]])
    assert ours.to_env(action).tolist() == [[-2.0, 0.0], [1.0, 0.5], [4.0, 1.0]]


@pytest.mark.parametrize(
    ("bounds", "begin"),
    [((-INF, INF), -1), ((-INF, 5), -1), ((-5, INF), -1), ((3, INF), 3), ((-INF, 0), -2)],
)
def test_tanh_maps_onto_two_within_the_bounds_where_one_is_infinite(
    bounds: tuple[float, float], begin: float
) -> None:
    action = torch.tensor([[-50.0], [0.0], [50.0]])
    expected = [[begin], [begin + 1.0], [begin + 2.0]]
    assert squashed(bounds).to_env(action).tolist() == expected


@pytest.mark.parametrize("squash", ["none", "tanh"])
def test_no_action_is_outside_of_the_box_by_a_bit(squash: str) -> None:
    """Bounds that float32 cannot hold, and sums that it rounds past those that it can."""
    draw = np.random.default_rng(3)
    ends = np.sort(draw.normal(size=(2, 400)) * 10.0 ** draw.integers(-3, 4, 400), axis=0)
    ends[:, 200:] = ends[:, 200:].astype(np.float32)
    ends[0, ::9], ends[1, 5::9] = -INF, INF
    ours = make_distribution(PolicyConfig(squash=squash), continuous(*ends.T.tolist()), "cpu")
    sampled = torch.from_numpy(draw.normal(size=(500, 400)).astype(np.float32)) * 30
    given = ours.to_env(sampled).double().numpy()
    assert (ends[0] <= given).all() and (given <= ends[1]).all()
    if squash == "tanh":
        width = np.where(np.isfinite(ends).all(0), ends[1] - ends[0], 2.0)
        assert (np.ptp(given, axis=0) >= 0.99 * width).all(), "and all of it is used"


def test_tanh_stays_finite_far_out() -> None:
    ours = squashed((-1.0, 1.0))
    params = torch.tensor([[1000.0, 1.0], [-1000.0, 1.0], [0.0, 1.0]], requires_grad=True)
    action = torch.tensor([[1000.0], [-1000.0], [1000.0]])
    log_prob, entropy = ours.log_prob(params, action), ours.entropy(params, torch.zeros(3, 1))
    (log_prob.sum() + entropy.sum()).backward()
    assert torch.isfinite(log_prob).all() and torch.isfinite(entropy).all()
    assert params.grad is not None and torch.isfinite(params.grad).all()
    # By symmetry, and log(1 - tanh(x)^2) -> log 4 - 2|x|.
    assert log_prob[0] == log_prob[1]
    assert entropy[0].item() == pytest.approx(
        0.5 * math.log(2 * math.pi * math.e) + math.log(4) - 2000
    )


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.0, 2.0)])
def test_tanh_entropy_sampled_is_the_integrated_one(mean: float, std: float) -> None:
    # H = H(N) + E[log(1 - tanh(x)^2)], on a fine grid.
    x = np.linspace(mean - 10 * std, mean + 10 * std, 200_001)
    density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    slope = -2 * np.logaddexp(x, -x) + 2 * np.log(2)
    integral = torch.trapezoid(torch.from_numpy(density * slope), torch.from_numpy(x)).item()
    expected = 0.5 * np.log(2 * np.pi * np.e * std**2) + integral
    n = 200_000
    ours, noise = squashed((-1.0, 1.0)), torch.randn(n, 1, generator=generator())
    sampled = ours.entropy(torch.tensor([mean, std]).expand(n, 2), noise)
    error = sampled.std().item() / math.sqrt(n)
    assert sampled.mean().item() == pytest.approx(expected, abs=5 * error)


def test_tanh_onto_the_widest_finite_bounds_gives_numbers() -> None:
    # Some envs say "unbounded" with float32's largest number; high - low then overflows.
    widest = float(np.finfo(np.float32).max)
    action = torch.tensor([[-3.0], [0.0], [3.0]])
    assert torch.isfinite(squashed((-widest, widest)).to_env(action)).all()


def test_tanh_leaves_kl_as_it_is() -> None:
    params, other = gaussian_params(), gaussian_params().flip(0)
    plain = Gaussian(UNBOUNDED, False, None)
    assert torch.equal(squashed((0, 1), (0, 1)).kl(params, other), plain.kl(params, other))


# ------------------------------------------------------------------ with a std of its own


@pytest.mark.parametrize("log", [False, True])
def test_a_heteroscedastic_gaussian_is_the_gaussian_of_its_moments(log: bool) -> None:
    ours = HeteroscedasticGaussian(
        UNBOUNDED, False, None, init_std=0.5, std_range=(0.1, 2.0), log=log
    )
    plain, params = Gaussian(UNBOUNDED, False, None), logits(64, 4)
    other, noise = params.flip(0), torch.randn(64, 2, generator=generator())
    raw = params[:, 2:]
    std = (0.5 * raw.exp() if log else 0.5 + raw).clamp(0.1, 2.0)
    close(ours.std(params), std)
    assert {0.1, 2.0} <= {round(x, 5) for x in ours.std(params).flatten().tolist()}
    same, changed = (torch.cat(ours.moments(x), dim=-1) for x in (params, other))
    assert torch.equal(ours.sample(params, noise), plain.sample(same, noise))
    assert torch.equal(ours.log_prob(params, noise), plain.log_prob(same, noise))
    assert torch.equal(ours.entropy(params, None), plain.entropy(same, None))
    assert torch.equal(ours.kl(params, other), plain.kl(same, changed))
    assert torch.equal(ours.mode(params), params[:, :2])
    assert (ours.num_params, ours.num_outputs) == (4, 4)


# ------------------------------------------------------------------ categorical


def logits(*shape: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=generator())


@pytest.mark.parametrize("nvec", [(4,), (2, 3, 5)])
def test_categorical_log_prob_entropy_and_kl_are_sums_of_torchs(nvec: tuple[int, ...]) -> None:
    ours, params = Categorical(discrete(*nvec)), logits(32, sum(nvec))
    other = params.flip(0)
    action = ours.sample(params, ours.draw_noise((32,), generator()))
    pieces = [td.Categorical(logits=p) for p in params.split(list(nvec), -1)]
    others = [td.Categorical(logits=p) for p in other.split(list(nvec), -1)]
    assert action.dtype == torch.int64 and action.shape == (32, len(nvec))
    expected = sum(d.log_prob(a) for d, a in zip(pieces, action.unbind(-1), strict=True))
    close(ours.log_prob(params, action), expected)
    close(ours.entropy(params, None), sum(d.entropy() for d in pieces))
    kl = sum(td.kl_divergence(p, q) for p, q in zip(pieces, others, strict=True))
    close(ours.kl(params, other), kl)
    assert ours.kl(params, params).abs().max() == 0


def test_categorical_modes_are_each_choices_largest_logit() -> None:
    params = torch.tensor([[0.0, 1.0, 5.0, -1.0, 4.0], [3.0, 1.0, -2.0, -1.0, -4.0]])
    assert Categorical(discrete(2, 3)).mode(params).tolist() == [[1, 0], [0, 1]]


def test_gumbel_samples_occur_as_often_as_their_probabilities() -> None:
    ours, n = Categorical(discrete(2, 4)), 40_000
    params = torch.tensor([0.0, 1.0, 2.0, 0.0, -1.0, 0.5])
    action = ours.sample(params, ours.draw_noise((n,), generator()))
    for choice, part in enumerate(params.split([2, 4])):
        expected = n * part.softmax(-1)
        counts = torch.bincount(action[:, choice], minlength=len(part))
        chi_square = ((counts - expected).square() / expected).sum().item()
        assert chi_square < 20  # 3 degrees of freedom: exceeded once in 6,000 seeds


def test_choices_of_one_action_are_independent() -> None:
    ours, n = Categorical(discrete(2, 2)), 40_000
    action = ours.sample(torch.zeros(4), ours.draw_noise((n,), generator()))
    both = torch.bincount(2 * action[:, 0] + action[:, 1], minlength=4)
    assert ((both - n / 4).square() / (n / 4)).sum().item() < 20


def test_an_impossible_choice_is_never_sampled() -> None:
    ours = Categorical(discrete(3))
    params = torch.tensor([0.0, -INF, 0.0])
    action = ours.sample(params, ours.draw_noise((10_000,), generator()))
    assert set(action.flatten().tolist()) == {0, 2}


def test_the_actions_kind_chooses_the_distribution() -> None:
    assert isinstance(
        make_distribution(PolicyConfig(squash="tanh"), discrete(3), "cpu"), Categorical
    )
    plain = make_distribution(PolicyConfig(), UNBOUNDED, "cpu")
    assert isinstance(plain, Gaussian) and not plain.squash and plain.num_params == 4
    asked = PolicyConfig(distribution="heteroscedastic", init_std=0.3, std_range=[0.2, 0.4])
    own = make_distribution(asked, UNBOUNDED, "cpu")
    assert isinstance(own, HeteroscedasticGaussian) and own.range == (0.2, 0.4)
    beta = make_distribution(PolicyConfig(distribution="beta"), UNBOUNDED, "cpu")
    assert isinstance(beta, Beta)
