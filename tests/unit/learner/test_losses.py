"""The decoupled PPO loss against numbers worked by hand.

The policy is one unit Gaussian; sample i's ratio is set through its proximal log-prob.
"""

import math
from types import SimpleNamespace

import pytest
import torch

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.ppo.losses import ActorSamples, CriticSamples, actor_loss, critic_loss
from isaac_hydra_ext.models.distributions import Gaussian

from ..builders import continuous

GAUSSIAN = Gaussian(continuous((-math.inf, math.inf)), squash=False, clip=None)
UNIT_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), in nats


def unit_params(rows: int) -> torch.Tensor:
    return torch.tensor([[0.0, 1.0]]).repeat(rows, 1)


def loss_of(
    ratio: list[float],
    advantage: list[float],
    weight: list[float] | None = None,
    value: tuple[list[float], list[float], list[float]] | None = None,
    params: torch.Tensor | None = None,
    **knobs: float | None,
) -> tuple[SimpleNamespace, torch.Tensor, torch.Tensor]:
    """Return both losses with their sum, and the leaves of its graph: parameters and values.

    `value` is (critic now, critic at the start of the iteration, target).
    """
    rows = len(ratio)
    config = PPOConfig(**{"clip": 0.25, "value_coef": 0.0, "entropy_coef": 0.0, **knobs})
    params = unit_params(rows) if params is None else params
    params.requires_grad_()
    action = torch.zeros(rows, 1)
    new, old, target = value or ([0.0] * rows, [0.0] * rows, [0.0] * rows)
    value_now = torch.tensor(new, requires_grad=True)
    log_prob = GAUSSIAN.log_prob(params.detach(), action)
    samples = ActorSamples(
        action_MA=action,
        advantage_M=torch.tensor(advantage),
        proximal_params_MP=unit_params(rows),
        proximal_log_prob_M=log_prob - torch.tensor(ratio).log(),
        weight_M=torch.tensor(weight or [1.0] * rows),
        entropy_noise_MP=None,
    )
    actor = actor_loss(config, GAUSSIAN, samples, params)
    critic = critic_loss(config, CriticSamples(torch.tensor(target), torch.tensor(old)), value_now)
    total = actor.total + config.value_coef * critic
    return SimpleNamespace(**{**vars(actor), "value": critic, "total": total}), params, value_now


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain"),
    [
        (1.5, 2.0, 2.5),  # min(1.5*2, 1.25*2): a good action is not pushed beyond the clip
        (1.5, -2.0, -3.0),  # min(1.5*-2, 1.25*-2): a bad one still pays in full
        (0.5, 2.0, 1.0),  # min(.5*2, .75*2): a good one that became unlikely is pulled back
        (0.5, -2.0, -1.5),  # min(.5*-2, .75*-2): a bad one is not pushed below the clip
        (1.1, 2.0, 2.2),  # inside the clip nothing changes
        (0.9, -2.0, -1.8),
    ],
)
def test_ratio_clip(ratio: float, advantage: float, gain: float) -> None:
    loss, _, _ = loss_of([ratio], [advantage])
    assert loss.surrogate.item() == pytest.approx(-gain, rel=1e-6)


def test_the_surrogate_is_the_weighted_mean_over_the_rows() -> None:
    # gains (2.5, -3) weighted (2, .5): -(5 - 1.5) / 2
    loss, _, _ = loss_of([1.5, 1.5], [2.0, -2.0], weight=[2.0, 0.5])
    assert loss.surrogate.item() == pytest.approx(-1.75, rel=1e-6)


def test_at_ratio_1_and_weight_1_it_is_minus_the_mean_advantage() -> None:
    loss, _, _ = loss_of([1.0, 1.0, 1.0], [1.0, 2.0, -9.0])
    assert loss.surrogate.item() == pytest.approx(2.0, rel=1e-6)
    assert loss.kl.item() == 0.0
    assert loss.clip_fraction.item() == 0.0


def test_clip_fraction_counts_ratios_outside_on_both_sides() -> None:
    loss, _, _ = loss_of([1.5, 0.5, 1.1, 0.9], [1.0, 1.0, 1.0, 1.0])
    assert loss.clip_fraction.item() == 0.5


@pytest.mark.parametrize(
    ("new", "old", "target", "error"),
    [
        (2.0, 1.0, 0.0, 4.0),  # moved away: both (2-0)^2 and (1.5-0)^2, the larger one
        (2.0, 1.0, 3.0, 2.25),  # moved towards it, beyond the clip: (1.5-3)^2 > (2-3)^2
        (-1.0, 0.0, 3.0, 16.0),  # moved down and away: (-1-3)^2 > (-.5-3)^2
        (-1.0, 0.0, -3.0, 6.25),  # moved down towards it: (-.5+3)^2 > (-1+3)^2
        (1.25, 1.0, 0.0, 1.5625),  # inside the clip
    ],
)
def test_value_clip(new: float, old: float, target: float, error: float) -> None:
    loss, _, _ = loss_of([1.0], [0.0], value=([new], [old], [target]), value_clip=0.5)
    assert loss.value.item() == pytest.approx(error, rel=1e-6)


def test_value_clip_null_is_the_plain_squared_error_not_halved() -> None:
    value = ([2.0, 5.0], [1.0, 1.0], [3.0, 1.0])
    loss, _, _ = loss_of([1.0, 1.0], [0.0, 0.0], value=value, value_clip=None)
    assert loss.value.item() == pytest.approx((1.0 + 16.0) / 2, rel=1e-6)


def test_a_clipped_value_has_no_gradient() -> None:
    value = ([2.0], [1.0], [3.0])
    loss, _, v = loss_of([1.0], [0.0], value=value, value_clip=0.5, value_coef=1.0)
    loss.total.backward()
    assert v.grad is not None and v.grad.item() == 0.0


def test_the_value_gradient_is_twice_the_error_times_its_coefficient() -> None:
    value = ([2.0], [2.0], [3.0])
    loss, _, v = loss_of([1.0], [0.0], value=value, value_clip=None, value_coef=0.5)
    loss.total.backward()
    assert v.grad is not None and v.grad.item() == pytest.approx(0.5 * 2 * (2 - 3))


def test_total_adds_the_value_and_subtracts_the_entropy() -> None:
    # surrogate -2, value (3-1)^2 = 4, entropy of N(0, 1)
    value = ([3.0], [3.0], [1.0])
    loss, _, _ = loss_of([1.0], [2.0], value=value, value_coef=0.5, entropy_coef=0.1)
    assert loss.entropy.item() == pytest.approx(UNIT_ENTROPY, rel=1e-6)
    assert loss.total.item() == pytest.approx(-2 + 0.5 * 4 - 0.1 * UNIT_ENTROPY, rel=1e-6)


def test_the_entropy_bonus_widens_the_gaussian() -> None:
    # d(-c * log std)/d std = -c at std = 1: descending raises std.
    loss, params, _ = loss_of([1.0], [0.0], entropy_coef=0.25)
    loss.total.backward()
    assert params.grad is not None
    assert params.grad[0].tolist() == pytest.approx([0.0, -0.25])


@pytest.mark.parametrize(("advantage", "sign"), [(1.0, -1.0), (-1.0, 1.0)])
def test_descending_moves_the_mean_towards_good_actions_only(advantage: float, sign: float) -> None:
    # action 0, mean 1, std 1: d ratio/d mean = (action - mean)/std^2 * ratio = -1 at ratio 1,
    # so d surrogate/d mean = -advantage * -1 = advantage: descending moves it by -advantage.
    params = torch.tensor([[1.0, 1.0]])
    loss, params, _ = loss_of([1.0], [advantage], params=params)
    loss.total.backward()
    assert params.grad is not None and -params.grad[0, 0].item() == pytest.approx(sign)


def test_a_clipped_ratio_has_no_gradient_and_the_weight_scales_the_others() -> None:
    params = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    loss, params, _ = loss_of([1.5, 1.0], [1.0, 1.0], weight=[1.0, 3.0], params=params)
    loss.total.backward()
    assert params.grad is not None
    # Row 0 is clipped; row 1: weight 3 * advantage 1 / 2 rows
    assert params.grad[:, 0].tolist() == pytest.approx([0.0, 1.5])


def test_kl_is_that_of_proximal_and_current_parameters() -> None:
    # KL(N(0,1) || N(1,2)) = log 2 + (1 + 1) / 8 - 1/2
    loss, _, _ = loss_of([1.0], [0.0], params=torch.tensor([[1.0, 2.0]]))
    assert loss.kl.item() == pytest.approx(math.log(2) + 0.25 - 0.5, rel=1e-6)
    assert not loss.kl.requires_grad
