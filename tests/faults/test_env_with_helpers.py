"""Environments that have processes of their own, in a worker."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from live_run import LiveRun, is_still

Live = Callable[..., LiveRun]
# Each worker has a helper that it has spawned and asks in every step, and one that it has forked,
# which holds copies of everything of its parent's and waits for a word that never comes.
MODULE = """
import multiprocessing
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

def wait(pipe):
    pipe.recv()

class WithHelpers(PendulumEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.spawned = multiprocessing.get_context("spawn").Pool(1)
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.forked = fork.Process(target=wait, args=(theirs,), daemon=True)
        self.forked.start()

    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, -self.spawned.apply(abs, (float(reward),)), *rest

    def close(self):
        self.spawned.terminate()

gymnasium.register("WithHelpers-v0", WithHelpers, max_episode_steps=50)
"""


@pytest.fixture
def with_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "helped_env.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    return [
        "env=gym_any", "env.id=WithHelpers-v0", "env.imports=[helped_env]",
        "rollout.num_workers=1", "rollout.envs_per_worker=1", "experiment.max_iterations=100000",
    ]  # fmt: skip


def note_helpers(run: LiveRun) -> list[psutil.Process]:
    """What the worker has started; `finish` then sees that they are gone."""
    (worker,) = run.workers()
    helpers = worker.children(recursive=True)
    assert len(helpers) >= 2, helpers
    run.seen.update(helpers)
    return helpers


def test_a_killed_worker_is_noticed_at_once_and_its_helpers_go_with_it(
    live: Live, with_helpers: list[str]
) -> None:
    run = live(*with_helpers)
    run.wait_for_iteration(3)
    helpers = note_helpers(run)
    run.workers()[0].send_signal(signal.SIGKILL)  # the heartbeat's limit is 120 s
    deadline = time.monotonic() + 60
    while "worker 0 (generation 0) was killed by SIGKILL; replaced" not in run.text()[1]:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    run.wait_for_iteration(run.text()[0].count("iteration ") + 3)
    assert not [p for p in helpers if is_still(p, lambda p: p.status() != psutil.STATUS_ZOMBIE)]
    note_helpers(run)
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    assert "Error" not in run.text()[1]
    assert run.summary()["worker_restarts"] == 1


def test_helpers_do_not_outlive_a_killed_learner(live: Live, with_helpers: list[str]) -> None:
    run = live(*with_helpers)
    run.wait_for_iteration(2)
    note_helpers(run)
    run.process.send_signal(signal.SIGKILL)
    assert run.finish() == -signal.SIGKILL
