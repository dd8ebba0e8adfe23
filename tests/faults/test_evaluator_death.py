"""An evaluator beside a run that is hurt, and a run beside an evaluator that is."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from live_run import HANG_S, LiveRun

Live = Callable[..., LiveRun]
MODULE = """
import os, time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Lazy(PendulumEnv):
    def step(self, action):
        if os.environ.get("MUJOCO_GL") == "evaluator":
            print("playing", flush=True)
            time.sleep(3600)
        return super().step(action)

gymnasium.register("Lazy-v0", Lazy, max_episode_steps=50)
"""


@pytest.fixture
def lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An env that never answers the evaluator."""
    (tmp_path / "lazy_env.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    return [
        "env=gym_any", "env.id=Lazy-v0", "env.imports=[lazy_env]", "evaluate.every=1",
        "+evaluate.environment.MUJOCO_GL=evaluator",
    ]  # fmt: skip


def evaluator_of(run: LiveRun, timeout: float = HANG_S) -> psutil.Process:
    """The process that plays, once it does."""
    deadline = time.monotonic() + timeout
    while not any("playing" in p.read_text() for p in run.logs.rglob("evaluator.log")):
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    (found,) = [p for p in run.workers() if p.environ().get("MUJOCO_GL") == "evaluator"]
    return found


def test_it_dies_with_a_killed_parent(live: Live, lazy: list[str]) -> None:
    run = live(*lazy, "experiment.max_iterations=100000")
    evaluator_of(run)
    assert len(run.workers()) == 3
    run.process.send_signal(signal.SIGKILL)
    assert run.finish() == -signal.SIGKILL


def test_a_stopped_run_does_not_wait_for_it(live: Live, lazy: list[str]) -> None:
    run = live(*lazy, "experiment.max_iterations=100000")
    evaluator_of(run)
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    assert run.summary()["status"] == "interrupted"


def test_a_signal_ends_the_wait_for_the_last_one_and_the_run_is_complete(
    live: Live, lazy: list[str]
) -> None:
    run = live(*lazy, "experiment.max_iterations=3")
    evaluator_of(run)
    run.wait_for_iteration(3)
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 0, run.text()
    assert run.summary()["status"] == "completed"


def test_a_killed_one_is_told_and_replaced_and_the_training_goes_on(
    live: Live, lazy: list[str]
) -> None:
    run = live(*lazy, "experiment.max_iterations=100000")
    evaluator_of(run).kill()
    deadline = time.monotonic() + HANG_S
    while "replaced (1 of at most 3 per hour)" not in run.text()[1]:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    done = run.text()[0].count("\niteration ")
    while run.text()[0].count("\niteration ") == done:
        assert run.process.poll() is None and time.monotonic() < deadline + HANG_S, run.text()
        time.sleep(0.05)
    run.workers()
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
