"""What benchmarks share: a training started as a user would, and its curve read back."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.common import train
from benchmarks.isaac_cartpole import checkout_of


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


def test_which_isaac_lab_was_measured_is_told_from_its_checkout(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("3.0.0\n")
    changes = tmp_path / "source" / "isaaclab" / "docs" / "CHANGELOG.rst"
    changes.parent.mkdir(parents=True)
    changes.write_text(
        "Changelog\n---------\n\n6.1.16 (2026-07-14)\n~~~~\n\n6.1.15 (2026-07-11)\n~~~~\n"
    )
    assert checkout_of(tmp_path) == "3.0.0 (source/isaaclab 6.1.16 of 2026-07-14)"
    author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init"], ["add", "."], [*author, "commit", "-m", "x"], ["tag", "v3.0.0-beta9"]):
        line = ["git", "-C", str(tmp_path), *words]
        subprocess.run(line, check=True, timeout=60, capture_output=True)
    assert checkout_of(tmp_path) == "3.0.0 (git v3.0.0-beta9)"
