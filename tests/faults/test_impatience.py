"""Signals at awkward moments: while envs are built, and while they are closed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from live_run import HANG_S, LiveRun, is_still

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]
MODULE = """
import subprocess, time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Slow(PendulumEnv):
    def __init__(self, start_s=0, **kwargs):
        super().__init__(**kwargs)
        self.helper = subprocess.Popen(["sleep", "1000"])
        time.sleep(start_s)

    def close(self):
        print("closing", flush=True)
        time.sleep(3600)

gymnasium.register("Slow-v0", Slow, max_episode_steps=50)
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "slow_env.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    return ["env=gym_any", "env.id=Slow-v0", "env.imports=[slow_env]", "rollout.envs_per_worker=1"]


def wait_until(happened: Callable[[], object], timeout: float = HANG_S) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def helpers_of(run: LiveRun) -> list[psutil.Process]:
    """What the simulations have started."""
    everything = run.ps.children(recursive=True)  # git's, too, which are short-lived
    return [p for p in everything if is_still(p, lambda p: p.name() == "sleep")]


def test_a_signal_ends_the_wait_for_a_slow_construction(live: Live, slow: list[str]) -> None:
    run = live(*slow, "+env.kwargs.start_s=1000")
    wait_until(lambda: helpers_of(run))
    run.workers()
    run.seen.update(helpers_of(run))
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    assert "stopped by signal 2 before training" in run.text()[1]
    assert not [*run.logs.glob("*/*")], "no directory of a run that did not start"


# With one signal alone this would go on for longer than the test waits.
ENDLESS_GRACE = """
from isaac_hydra_ext.cli.train import main
from isaac_hydra_ext.workers import pool

pool.CLOSE_GRACE_S = 3600.0
main()
"""


def test_a_second_signal_while_closing_leaves_nothing_behind(live: Live, slow: list[str]) -> None:
    run = live(*slow, "experiment.max_iterations=100000", program=ENDLESS_GRACE)
    run.wait_for_iteration(3)
    run.seen.update(helpers_of(run))
    run.process.send_signal(signal.SIGTERM)
    wait_until(lambda: any("closing" in p.read_text() for p in run.logs.rglob("worker_*.log")))
    run.insist(signal.SIGTERM)
    assert run.finish() == 143, run.text()
    summary = run.summary()
    assert summary["status"] == "interrupted"
    assert summary["samples_produced"] == summary["samples_consumed"] + summary["samples_abandoned"]
    (path,) = run.checkpoints()
    assert load_checkpoint(path).meta["iteration"] == summary["iterations"]
    assert "Traceback" not in run.text()[1]


def test_a_second_signal_ends_an_update_in_its_thread_without_a_crash(live: Live) -> None:
    run = live(
        "rollout.num_workers=0", "rollout.max_policy_lag=1", "ppo.update_epochs=100000",
        "experiment.max_iterations=100000",
    )  # fmt: skip
    wait_until(lambda: "truncated episodes bootstrap" in run.text()[0])
    time.sleep(2.0)  # the first update goes on for many minutes
    run.process.send_signal(signal.SIGINT)
    run.insist(signal.SIGINT)
    assert run.finish() == 130, run.text()
