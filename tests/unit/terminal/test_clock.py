"""The time left, on simulated iterations: within 10% after a fifth of the run."""

from collections.abc import Callable

import numpy as np
import pytest

from isaac_hydra_ext.terminal.clock import Clock, as_duration

Shape = Callable[[int, np.random.Generator], float]
SHAPES: dict[str, Shape] = {
    "steady": lambda k, rng: 1.0,
    "slow first iteration": lambda k, rng: 90.0 if k == 0 else 1.0,
    "slow first three": lambda k, rng: 20.0 if k < 3 else 1.0,
    "noisy": lambda k, rng: float(rng.lognormal(sigma=0.25)),
    "now and then a long one": lambda k, rng: 4.0 if k % 10 == 0 else 1.0,
    "slower by a fifth over the run": lambda k, rng: 1.0 + 0.2 * k / 300,
}


def worst_error(shape: Shape, total: int, save_every: int, save_s: float, first: int = 0) -> float:
    """The largest relative error from a fifth of the run to nine tenths of it."""
    rng, time = np.random.default_rng(0), [0.0]
    clock = Clock(first, total, save_every, lambda: time[0])
    told: list[tuple[int, float, float]] = []
    for k in range(first, total):
        time[0] += shape(k - first, rng)
        told.append((k + 1 - first, time[0], clock.iteration_done()))
        if (k + 1) % save_every == 0 or k + 1 == total:
            time[0] += save_s
            clock.save_done()
    count = total - first
    judged = [(at, eta) for done, at, eta in told if 0.2 * count <= done <= 0.9 * count]
    return max(abs(eta - (time[0] - at)) / (time[0] - at) for at, eta in judged)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(("save_every", "save_s"), [(50, 0.0), (50, 10.0), (7, 3.0)])
@pytest.mark.parametrize("first", [0, 120])
def test_the_time_left_is_right_within_a_tenth(
    shape: Shape, save_every: int, save_s: float, first: int
) -> None:
    assert worst_error(shape, first + 300, save_every, save_s, first) < 0.1


def test_a_run_of_two_iterations_has_an_estimate_too() -> None:
    time = [0.0]
    clock = Clock(0, 2, 50, lambda: time[0])
    time[0] = 3.0
    assert clock.iteration_done() == 3.0
    time[0] = 4.0
    assert clock.iteration_done() == 0.0


def test_the_last_save_is_part_of_what_is_left() -> None:
    time = [0.0]
    clock = Clock(0, 5, 2, lambda: time[0])
    for k in range(4):
        time[0] += 1.0
        left = clock.iteration_done()
        if k % 2:
            time[0] += 10.0
            clock.save_done()
    assert left == 1.0 + 10.0 + 10.0, "iteration 5, the save of 4 and that of 5"


def test_durations() -> None:
    assert as_duration(90.4) == "0:01:30"
    assert as_duration(90061) == "1 day, 1:01:01"


def test_a_long_run_keeps_no_time_of_each_iteration_and_its_estimate_stays_right() -> None:
    time = [0.0]
    clock = Clock(0, 100_000, 50, lambda: time[0])
    for k in range(60_000):
        time[0] += 3.0 if k < 10_000 else 1.0  # the first quarter is none to go by
        left = clock.iteration_done()
    assert left == pytest.approx(40_000, rel=0.01)
    assert len(vars(clock)["_marks"]) <= 1001
