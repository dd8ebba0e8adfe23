"""What the peers' benchmark reads off the envs' notes, worked out by hand."""

import pytest

from benchmarks.peers import WINDOW, read_log


def test_the_threshold_is_where_the_last_hundred_without_first_episodes_reach_it() -> None:
    # Two envs: their first episodes are perfect, and count for time and samples alone.
    lines = ["start 1000.5", "start 1000.0", "episode 1001 500 10", "episode 1002 500 10"]
    lines += [f"episode {1003 + i} 0 10" for i in range(WINDOW)]
    lines += [f"episode {1103 + i} 100 10" for i in range(WINDOW)]
    found = read_log("\n".join(lines + ["episode 1203 1"]), threshold=50.0, num_envs=2)
    assert found["threshold_s"] == 1103 + 49 - 1000
    assert found["threshold_samples"] == (2 + WINDOW + 50) * 10
    assert found["seconds"] == 202 and found["samples"] == 2020
    assert found["steps_per_s"] == pytest.approx(10.0)
    assert found["last_mean"] == 100.0


def test_a_threshold_that_is_not_reached_is_none() -> None:
    lines = ["start 0", *(f"episode {i + 1} 1 5" for i in range(WINDOW + 1))]
    found = read_log("\n".join(lines), threshold=2.0, num_envs=1)
    assert found["threshold_s"] is found["threshold_samples"] is None
