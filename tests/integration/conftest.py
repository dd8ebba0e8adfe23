"""Runs as a user starts them: in this process through `train`, or as a subprocess."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from isaac_commands import Stage

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint

TINY = [
    "rollout.envs_per_worker=4", "rollout.steps_per_env=16", "logging.console=quiet",
    "logging.report=false",  # a second of matplotlib each
]  # fmt: skip


@pytest.fixture
def train_run(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Train with overrides (tiny sizes first) and return the newest checkpoint."""

    def run(*overrides: str) -> Checkpoint:
        typed = [f"experiment.output_dir={tmp_path}", *TINY, *overrides]
        with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
            cfg = compose("train_appo", overrides=typed)
        summary = train(cfg, typed)
        return find_checkpoint(summary["run_dir"], tmp_path)[0]

    return run


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the runner's command line to its end."""

    def run(*overrides: str, timeout: float = 400, **kwargs: Any) -> Any:
        line = [sys.executable, "-m", "isaac_hydra_ext.appo_runner"]
        line += [f"experiment.output_dir={tmp_path / 'logs'}", *overrides]
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        return subprocess.run(
            line, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, env=env, **kwargs
        )

    return run


@pytest.fixture
def on_stage(tmp_path: Path) -> Callable[[str], Stage]:
    return lambda generation: Stage(generation, tmp_path)
