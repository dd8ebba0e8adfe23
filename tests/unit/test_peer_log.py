"""What the peers' benchmark reads off the envs' notes, worked out by hand."""

import pytest

from benchmarks.peers import WINDOW, read_log


def test_the_threshold_is_where_the_last_hundred_without_first_episodes_reach_it() -> None:
    # Two envs, 10 steps an episode: their first ones are perfect, and count for time alone. The
    # second env began in the middle of one, and its third ends before the first's.
    lines = ["start 1000.5", "start 1000.0", "episode 1001 500 0 10", "episode 1001 500 0 5"]
    for i in range(WINDOW):
        value = 0 if i < WINDOW // 2 else 100
        lines += [f"episode {1002 + i} {value} {i + 1} {20 + 10 * i}"]
        lines += [f"episode {1001.5 + i} {value} {i + 1} {15 + 10 * i}"]
    found = read_log("\n".join(lines + ["episode 1203 1"]), 50.0, num_envs=2, began=990.0)
    # The hundredth of the last hundred: 50 of 0, then 50 of 100, which are 25 of each env.
    assert found["threshold_s"] == 1002 + 74 - 1000 and found["start_s"] == 10.0
    assert found["threshold_samples"] == 2 * (20 + 10 * 74)
    assert found["seconds"] == 101 and found["samples"] == 2 * (20 + 10 * 99)
    assert found["steps_per_s"] == pytest.approx(2 * 1010 / 101)
    assert found["last_mean"] == 100.0


def test_a_threshold_that_is_not_reached_is_none() -> None:
    lines = ["start 0", *(f"episode {i + 1} 1 {i} {5 * i + 5}" for i in range(WINDOW + 1))]
    found = read_log("\n".join(lines), threshold=2.0, num_envs=1, began=0.0)
    assert found["threshold_s"] is found["threshold_samples"] is None
