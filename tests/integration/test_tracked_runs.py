"""Trackers of whole runs: what a run leaves behind, and what a resumed one goes on with."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.checkpoints.file import Checkpoint

Train = Callable[..., Checkpoint]
W0 = ("rollout.num_workers=0", "checkpoint.every=2")


def run_dir(checkpoint: Checkpoint) -> Path:
    return checkpoint.path.parent.parent


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_resumed_run_has_one_table_and_the_same_wandb_run(
    train_run: Train,
) -> None:
    pytest.importorskip("wandb")
    trackers = ("logging.backends=[csv,tensorboard,wandb]", "logging.wandb.mode=offline")
    first = run_dir(train_run(*W0, *trackers, "experiment.max_iterations=4"))
    second = run_dir(
        train_run(*W0, *trackers, f"resume={first}", "experiment.max_iterations=6",
                  "logging.aliases=rlinf")
    )  # fmt: skip
    assert first != second
    assert [row["iteration"] for row in rows(first)] == ["1", "2", "3", "4"]
    assert [row["iteration"] for row in rows(second)] == ["1", "2", "3", "4", "5", "6"]
    assert rows(second)[:4][0]["Loss/value"] == rows(first)[0]["Loss/value"]
    assert rows(second)[5]["train/critic/value_loss"] == rows(second)[5]["Loss/value"]
    ids = [json.loads((d / "trackers.json").read_text())["wandb"] for d in (first, second)]
    assert ids[0] == ids[1]
    for directory in (first, second):
        assert list(directory.glob(f"wandb/offline-run-*/run-{ids[0]}.wandb"))
        assert list(directory.glob("events.out.tfevents.*"))


def test_a_tracker_that_is_not_installed_is_one_line_and_leaves_nothing(
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "swanlab.py").write_text("raise ImportError('no swanlab here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    done: Any = command(*W0, "logging.backends=[csv,swanlab]")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: logging.backends=[swanlab]: no swanlab here; install it with: "
        "pip install 'isaac-hydra-ext[swanlab]'\n"
    )
    assert not (tmp_path / "logs").exists()


def test_quiet_says_nothing_of_a_run_that_goes_well(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    tiny = ("rollout.envs_per_worker=2", "rollout.steps_per_env=8", "experiment.max_iterations=1")
    done = command("rollout.num_workers=1", *tiny, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.glob("logs/*/*/summary.json"))
