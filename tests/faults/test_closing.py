"""Simulations that do not want to end, or end without a word."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import LiveRun

Live = Callable[..., LiveRun]
MODULE = """
import os, signal, time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Stubborn(PendulumEnv):
    def __init__(self, close="hang", start_s=0, **kwargs):
        super().__init__(**kwargs)
        self.how = close
        time.sleep(start_s)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def close(self):
        if self.how == "hang":
            time.sleep(3600)
        if self.how == "exit 0":
            os._exit(0)
        if self.how == "raise":
            raise RuntimeError("the door is stuck")

gymnasium.register("Stubborn-v0", Stubborn, max_episode_steps=50)
"""


@pytest.fixture
def stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "stubborn_env.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    imports = ["env=gym_any", "env.id=Stubborn-v0", "env.imports=[stubborn_env]"]
    return [*imports, "experiment.max_iterations=3"]


def test_a_close_that_never_returns_is_bounded_and_told(live: Live, stubborn: list[str]) -> None:
    run = live(*stubborn, "+env.kwargs.close=hang")
    run.wait_for_iteration(3)
    assert run.finish() == 0, run.text()
    assert "worker 0 did not close its env: it was killed by SIGKILL" in run.text()[1]
    assert run.summary()["status"] == "completed"


def test_an_exit_code_of_0_is_no_proof_of_closing(live: Live, stubborn: list[str]) -> None:
    run = live(*stubborn, "+env.kwargs.close='exit 0'")
    assert run.finish() == 0, run.text()
    assert "worker 1 did not close its env: it exited with code 0" in run.text()[1]


@pytest.mark.release
def test_slow_construction_is_waited_for(live: Live, stubborn: list[str]) -> None:
    run = live(*stubborn, "+env.kwargs.start_s=1", "+env.kwargs.close=no")  # 4 envs a worker
    assert run.finish() == 0, run.text()
    assert not run.text()[1]


def test_construction_that_hangs_names_its_worker(live: Live, stubborn: list[str]) -> None:
    run = live(*stubborn, "+env.kwargs.start_s=1000", "rollout.startup_timeout_s=5")
    assert run.finish() == 1
    (line,) = run.text()[1].strip().splitlines()
    assert line.startswith("error: worker 0: no environment after 5 s; raise rollout.startup")


def test_without_workers_a_close_that_raises_is_told_and_the_run_has_completed(
    live: Live, stubborn: list[str]
) -> None:
    run = live(*stubborn, "+env.kwargs.close=raise", "rollout.num_workers=0")
    assert run.finish() == 0, run.text()
    assert "close, env Stubborn-v0: RuntimeError: the door is stuck" in run.text()[1]
    assert run.summary()["status"] == "completed"


SHORT_PATIENCE = """
from isaac_hydra_ext.rollout import in_process

in_process.CLOSE_LIMIT_S = 2.0
from isaac_hydra_ext.cli.train import main
main()
"""


def test_without_workers_a_close_that_never_returns_ends_with_its_stack(
    live: Live, stubborn: list[str], tmp_path: Path
) -> None:
    run = live(*stubborn, "+env.kwargs.close=hang", "rollout.num_workers=0", program=SHORT_PATIENCE)
    assert run.finish() == 1, run.text()
    assert "in close" in run.text()[1], "where it hangs"
    assert run.summary()["status"] == "completed", "said before"
    assert run.checkpoints()
