"""Workers whose log is on a full disk, or nowhere."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import HANG_S, LiveRun

Live = Callable[..., LiveRun]
MODULE = """
import os
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Prints(PendulumEnv):
    def __init__(self, raise_at=0, **kwargs):
        super().__init__(**kwargs)
        self.raise_at, self.count = raise_at, 0
        full = os.open("/dev/full", os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(full, stream)

    def step(self, action):
        self.count += 1
        print("step", self.count, flush=True)
        if self.count == self.raise_at:
            raise RuntimeError("fell through the floor")
        return super().step(action)

gymnasium.register("Prints-v0", Prints, max_episode_steps=50)
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_an_env_that_prints_needs_no_disk_and_its_error_is_told_all_the_same(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printing_env.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    run = live(
        "env=gym_any", "env.id=Prints-v0", "env.imports=[printing_env]", "rollout.num_workers=1",
        "+env.kwargs.raise_at=40", "rollout.on_worker_failure=stop",
    )  # fmt: skip
    assert run.finish() == 1
    assert "step, env Prints-v0: RuntimeError: fell through the floor" in run.text()[1]
    assert run.summary()["iterations"] == 2, "32 steps of each env were no problem"


def test_a_replacement_without_a_log_trains(live: Live, tmp_path: Path) -> None:
    run = live("experiment.max_iterations=100000", "rollout.num_workers=1", "checkpoint.every=1000")
    run.wait_for_iteration(3)
    moved = run.logs.rename(tmp_path / "moved")
    run.logs.touch()  # a file: no directory can be made there again
    run.logs = moved
    run.workers()[0].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + HANG_S
    while "worker 0: no log: " not in run.text()[1]:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    run.wait_for_iteration(run.text()[0].count("iteration ") + 3)
    run.process.send_signal(signal.SIGINT)
    run.finish()
    said = run.text()[1]
    assert "replaced (1 of at most 10 per hour)" in said
    assert said.count("was moved or deleted, and cannot be made again: ") == 1
