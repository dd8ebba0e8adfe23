"""What benchmarks share: a training started as a user would, and its curve read back."""

import sys
from pathlib import Path

import pytest

from benchmarks.common import train
from benchmarks.isaac_start import FIRST, THEIRS, first_iteration, render


def test_a_training_and_its_curve(tmp_path: Path) -> None:
    training = train(
        [
            "env=gym_pendulum",
            "rollout.num_workers=1",
            "rollout.envs_per_worker=4",
            "rollout.steps_per_env=16",
            "experiment.max_iterations=30",
        ],
        str(tmp_path),
    )
    assert training.summary["status"] == "completed"
    assert [p.env_steps for p in training.curve] == [64 * (k + 1) for k in range(30)]
    assert training.curve[-1].mean_return == pytest.approx(training.summary["mean_return"])
    assert training.config["rollout"]["envs_per_worker"] == 4


def test_a_start_is_timed_until_the_line_that_says_so(tmp_path: Path) -> None:
    script = (
        "import time; sum(range(5_000_000)); print('starting\\niteration 1/2 |', flush=True)\n"
        "time.sleep(0.5)"
    )
    command = [sys.executable, "-c", script]
    with pytest.raises(RuntimeError, match="no first iteration\nstarting"):
        first_iteration(command, r"^iteration 2/", str(tmp_path))
    seconds, processor = first_iteration(command, FIRST[""], str(tmp_path))
    assert 0 < processor < 10 and seconds > 0
    rows = [
        {"command": name, "turn": turn, "seconds": 2.0 * k * turn, "processor_s": 1.0 * k}
        for k, name in enumerate((THEIRS, "ours"), start=1)
        for turn in (1, 2, 3)
    ]
    assert "| ours | 8.0 | 2.00 | 2.0 | 2.00 |" in render({"rows": rows})
