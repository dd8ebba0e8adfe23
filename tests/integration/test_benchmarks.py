"""What benchmarks share: a training started as a user would, and its curve read back."""

from pathlib import Path

import pytest

from benchmarks.common import train


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
