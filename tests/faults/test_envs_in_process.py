"""W = 0: an env that ends the process, or leaves a thread behind, in the run's own process."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import LiveRun

from isaac_hydra_ext.errors import EnvError

ENV = """
import sys
import threading

import gymnasium as gym
import numpy as np


class Odd(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def __init__(self, leaves="", ends=""):
        self._ends = ends
        if leaves:
            threading.Thread(target=threading.Event().wait, args=(3600,), name=leaves).start()

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self._ends and self.steps == 40:
            raise SystemExit(0) if self._ends == "exit" else KeyboardInterrupt
        return np.zeros(2, np.float32), 1.0, False, self.steps % 10 == 0, {}


gym.register("Odd-v0", entry_point="odd_env:Odd")
"""
ODD = ("env=gym_any", "env.id=Odd-v0", "env.imports=[odd_env]", "rollout.num_workers=0")


@pytest.fixture
def odd(live: Callable[..., LiveRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    (tmp_path / "odd_env.py").write_text(ENV)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    return lambda *overrides: live(*ODD, *overrides)


@pytest.mark.parametrize("ends", ["exit", "interrupt"])
def test_an_env_that_ends_the_process_ends_the_run_with_an_error_and_a_checkpoint(
    odd: Callable[..., LiveRun], ends: str
) -> None:
    run = odd(f"+env.kwargs.ends={ends}", "experiment.max_iterations=8")
    assert run.finish() == EnvError.exit_code
    assert "error: step, env Odd-v0: " in run.text()[1]
    assert run.summary()["status"] == "failed" and run.summary()["iterations"] > 0
    assert run.checkpoints()


def test_a_finished_run_ends_though_its_env_has_left_a_thread(odd: Callable[..., LiveRun]) -> None:
    run = odd("+env.kwargs.leaves=camera", "experiment.max_iterations=2")
    assert run.finish() == 0
    assert "thread camera" in run.text()[1] and run.summary()["status"] == "completed"
