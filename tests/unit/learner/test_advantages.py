"""GAE and V-trace against numbers worked by hand. Rewards and values are small integers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isaac_hydra_ext.learner.ppo.advantages import gae, next_values, vtrace


def column(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).unsqueeze(1)


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool).unsqueeze(1)


NONE = flags(0, 0, 0)
VALUES = column(2, 4, 6, 8)  # V(s_0), V(s_1), V(s_2), and V of the observation after
REWARDS = column(1, 2, 3)


def bootstrap(
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    final: torch.Tensor | None = None,
    finite_horizon: bool = False,
) -> torch.Tensor:
    final = column(99, 99, 99) if final is None else final
    return next_values(VALUES, terminated, truncated, final, finite_horizon)


def hand_gae(next_value: torch.Tensor, done: torch.Tensor, lam: float = 0.5) -> list[float]:
    advantage, target = gae(REWARDS, VALUES[:3], next_value, done, gamma=0.5, lam=lam)
    torch.testing.assert_close(target, advantage + VALUES[:3], rtol=0, atol=0)
    return advantage[:, 0].tolist()


def test_next_values_without_an_end_are_the_following_observations() -> None:
    assert bootstrap(NONE, NONE)[:, 0].tolist() == [4, 6, 8]


def test_nothing_follows_a_termination() -> None:
    assert bootstrap(flags(0, 1, 0), NONE)[:, 0].tolist() == [4, 0, 8]


def test_a_truncation_is_followed_by_its_final_observation_not_by_the_next_episode() -> None:
    assert bootstrap(NONE, flags(0, 1, 0), column(99, 10, 99))[:, 0].tolist() == [4, 10, 8]


def test_terminated_and_truncated_counts_as_terminated() -> None:
    assert bootstrap(flags(0, 1, 0), flags(0, 1, 0), column(99, 10, 99))[1, 0] == 0


def test_nothing_follows_a_truncation_of_a_finite_horizon() -> None:
    value = bootstrap(NONE, flags(0, 1, 0), column(99, 10, 99), finite_horizon=True)
    assert value[:, 0].tolist() == [4, 0, 8]


def test_a_masked_final_value_may_be_nan_without_reaching_anything() -> None:
    final = column(float("nan"), float("nan"), float("nan"))
    assert bootstrap(flags(0, 1, 0), flags(0, 1, 0), final)[:, 0].tolist() == [4, 0, 8]


def test_gae_without_an_end() -> None:
    # delta_2 = 3 + .5*8 - 6 = 1     A_2 = 1
    # delta_1 = 2 + .5*6 - 4 = 1     A_1 = 1 + .25 * 1    = 1.25
    # delta_0 = 1 + .5*4 - 2 = 1     A_0 = 1 + .25 * 1.25 = 1.3125
    assert hand_gae(bootstrap(NONE, NONE), NONE) == [1.3125, 1.25, 1.0]


def test_gae_with_a_termination_in_the_middle() -> None:
    # delta_2 = 1                  A_2 = 1
    # delta_1 = 2 + 0 - 4 = -2     A_1 = -2 (the sum stops there)
    # delta_0 = 1                  A_0 = 1 + .25 * -2 = .5
    done = flags(0, 1, 0)
    assert hand_gae(bootstrap(done, NONE), done) == [0.5, -2.0, 1.0]


def test_gae_with_a_truncation_whose_final_observation_is_known() -> None:
    # delta_1 = 2 + .5*10 - 4 = 3    A_1 = 3
    # delta_0 = 1                    A_0 = 1 + .25 * 3 = 1.75
    done = flags(0, 1, 0)
    assert hand_gae(bootstrap(NONE, done, column(0, 10, 0)), done) == [1.75, 3.0, 1.0]


def test_gae_with_a_truncation_that_falls_back_to_the_value_of_its_own_state() -> None:
    # V(s_1) = 4 stands in: delta_1 = 2 + .5*4 - 4 = 0,  A_1 = 0,  A_0 = 1 + .25 * 0 = 1
    done = flags(0, 1, 0)
    assert hand_gae(bootstrap(NONE, done, VALUES[:3]), done) == [1.0, 0.0, 1.0]


def test_gae_with_a_truncation_of_a_finite_horizon_is_that_of_a_termination() -> None:
    done = flags(0, 1, 0)
    assert hand_gae(bootstrap(NONE, done, column(0, 10, 0), True), done) == [0.5, -2.0, 1.0]


def test_gae_with_an_end_in_the_last_step() -> None:
    # delta_2 = 3 - 6 = -3; A_1 = 1 + .25 * -3 = .25; A_0 = 1 + .25 * .25 = 1.0625
    done = flags(0, 0, 1)
    assert hand_gae(bootstrap(done, NONE), done) == [1.0625, 0.25, -3.0]


def test_gae_at_lambda_0_is_the_one_step_error() -> None:
    assert hand_gae(bootstrap(NONE, NONE), NONE, lam=0.0) == [1.0, 1.0, 1.0]


def test_gae_at_lambda_1_is_the_discounted_return_less_the_value() -> None:
    # R_2 = 3 + .5*8 = 7;  R_1 = 2 + .5*7 = 5.5;  R_0 = 1 + .5*5.5 = 3.75
    assert hand_gae(bootstrap(NONE, NONE), NONE, lam=1.0) == [3.75 - 2, 5.5 - 4, 7.0 - 6]


def test_gae_keeps_environments_apart() -> None:
    def two(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, other], dim=1)

    done = flags(0, 1, 0)
    advantage, _ = gae(
        two(REWARDS, REWARDS),
        two(VALUES[:3], VALUES[:3]),
        two(bootstrap(done, NONE), bootstrap(NONE, NONE)),
        two(done, NONE),
        gamma=0.5,
        lam=0.5,
    )
    assert advantage.tolist() == [[0.5, 1.3125], [-2.0, 1.25], [1.0, 1.0]]


def hand_vtrace(
    rho: tuple[float, ...], done: torch.Tensor = NONE, rho_bar: float = 1.0, c_bar: float = 1.0
) -> tuple[list[float], list[float]]:
    following = bootstrap(done, NONE)
    advantage, target = vtrace(
        REWARDS, VALUES[:3], following, done, column(*rho), 0.5, 0.5, rho_bar, c_bar
    )
    return advantage[:, 0].tolist(), target[:, 0].tolist()


def test_vtrace_with_rho_above_and_below_the_bars() -> None:
    # All deltas are 1 (see GAE). rho = (2, .5, 4): min(rho, 1) = (1, .5, 1), c = .5 * that.
    # gap_2 = 1 * 1                        = 1       v_2 = 7       A_2 = 1
    # gap_1 = .5 * 1 + .5 * .25 * 1        = .625    v_1 = 4.625   A_1 = 1 + .25 * 1    = 1.25
    # gap_0 = 1 * 1 + .5 * .5 * .625       = 1.15625 v_0 = 3.15625 A_0 = 1 + .25 * .625 = 1.15625
    advantage, target = hand_vtrace((2, 0.5, 4))
    assert advantage == [1.15625, 1.25, 1.0]
    assert target == [3.15625, 4.625, 7.0]


def test_vtrace_truncates_by_its_two_bars_separately() -> None:
    # rho = 4 everywhere, rho_bar = 2, c_bar = 1: delta counts twice, c = .5.
    # gap_2 = 2;  gap_1 = 2 + .5*.5*2 = 2.5;  gap_0 = 2 + .5*.5*2.5 = 2.625
    # A_2 = 1;    A_1 = 1 + .25*2 = 1.5;      A_0 = 1 + .25*2.5 = 1.625
    advantage, target = hand_vtrace((4, 4, 4), rho_bar=2.0, c_bar=1.0)
    assert advantage == [1.625, 1.5, 1.0]
    assert target == [4.625, 6.5, 8.0]


def test_vtrace_stops_at_an_end() -> None:
    # delta = (1, -2, 1) with the end at t = 1; rho = .5: gap_2 = .5; gap_1 = -1;
    # gap_0 = .5*1 + .5*.25*-1 = .375;  A_2 = 1; A_1 = -2; A_0 = 1 + .25*-1 = .75
    advantage, target = hand_vtrace((0.5, 0.5, 0.5), done=flags(0, 1, 0))
    assert advantage == [0.75, -2.0, 1.0]
    assert target == [2.375, 3.0, 6.5]


def test_vtrace_survives_an_overflowing_weight() -> None:
    advantage, target = hand_vtrace((float("inf"), 1, float("inf")))
    assert advantage == [1.3125, 1.25, 1.0]
    assert target == [3.3125, 5.25, 7.0]


@settings(max_examples=100, deadline=None)
@given(
    T=st.integers(1, 9),
    N=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
)
def test_vtrace_with_weight_1_is_gae(T: int, N: int, seed: int, gamma: float, lam: float) -> None:
    g = torch.Generator().manual_seed(seed)
    reward, final = torch.randn(T, N, generator=g), torch.randn(T, N, generator=g)
    value = torch.randn(T + 1, N, generator=g)
    terminated, truncated = torch.rand(2, T, N, generator=g) < 0.3
    following = next_values(value, terminated, truncated, final, finite_horizon=False)
    series = (reward, value[:-1], following, terminated | truncated)
    ours = vtrace(*series, torch.ones(T, N), gamma, lam, 1.0, 1.0)
    reference = gae(*series, gamma, lam)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    series = (REWARDS.to(dtype), VALUES[:3].to(dtype), VALUES[1:].to(dtype), NONE)
    assert {x.dtype for x in gae(*series, 0.5, 0.5)} == {dtype}
