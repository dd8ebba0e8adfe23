"""Environments that raise, in a worker and through `env.imports`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]
MODULE = """
import os
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

if os.environ.get("FRAGILE_GONE") and os.path.exists(os.environ["FRAGILE_GONE"]):
    raise ImportError("the package is gone")

class Fragile(PendulumEnv):
    def __init__(self, phase="", after=100, **kwargs):
        super().__init__(**kwargs)
        self.phase, self.after, self.count = phase, after, 0
        if phase == "constructor":
            raise RuntimeError("no such robot")

    def reset(self, **kwargs):
        if self.phase == "reset" or (self.phase == "second reset" and self.count):
            raise RuntimeError("cannot stand up")
        return super().reset(**kwargs)

    def step(self, action):
        self.count += 1
        if self.phase in ("step", "exit") and self.count == self.after:
            if self.phase == "exit":
                os._exit(0)
            raise RuntimeError("fell through the floor")
        return super().step(action)

gymnasium.register("Fragile-v0", Fragile, max_episode_steps=50)
"""


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "fragile_env.py").write_text(MODULE)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    return ["env=gym_any", "env.id=Fragile-v0", "env.imports=[fragile_env]"]


@pytest.mark.parametrize(
    ("phase", "message"),
    [("constructor", "no such robot"), ("reset", "cannot stand up")],
)
def test_an_env_that_cannot_start_stops_the_run(
    live: Live, fragile: list[str], phase: str, message: str
) -> None:
    run = live(*fragile, f"+env.kwargs.phase={phase}")
    assert run.finish() == 1
    error = run.text()[1]
    assert "worker 0, build, env Fragile-v0: RuntimeError: " + message in error
    assert "fragile_env.py" in error, "the original traceback is there"
    (log,) = run.logs.rglob("*.log")
    assert message in log.read_text() and "workers/worker_0.log in the run directory" in error


def test_an_env_that_raises_in_step_is_named_when_failure_means_stop(
    live: Live, fragile: list[str]
) -> None:
    run = live(*fragile, "+env.kwargs.phase=step", "rollout.on_worker_failure=stop")
    assert run.finish() == 1
    error = run.text()[1]
    assert "step, env Fragile-v0: RuntimeError: fell through the floor" in error
    assert "fragile_env.py" in error
    (path,) = run.checkpoints()
    assert load_checkpoint(path).meta["iteration"] == run.summary()["iterations"] > 0


def test_an_env_that_cannot_be_reset_between_two_episodes_is_named(
    live: Live, fragile: list[str]
) -> None:
    fragile += ["+env.kwargs.phase='second reset'", "rollout.init_at_random_ep_len=false"]
    run = live(*fragile, "rollout.on_worker_failure=stop")
    assert run.finish() == 1
    assert "step, env Fragile-v0: RuntimeError: cannot stand up" in run.text()[1]
    assert run.checkpoints()


def test_a_simulation_that_ends_its_process_with_0_has_failed(
    live: Live, fragile: list[str]
) -> None:
    run = live(*fragile, "+env.kwargs.phase=exit", "rollout.max_restarts=2")
    assert run.finish() == 1
    error = run.text()[1]
    assert "rollout.max_restarts=2 replacements per hour are used up" in error
    listed = error.split("used up: ")[1]
    assert listed.count("exited with code 0") == 3, "each failure's exit code"
    assert run.summary()["worker_restarts"] == 2
    assert load_checkpoint(run.checkpoints()[-1]).meta["iteration"] == run.summary()["iterations"]


def test_a_replacement_that_cannot_be_built_loses_nothing(
    live: Live, fragile: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    monkeypatch.setenv("FRAGILE_GONE", str(gone))
    run = live(*fragile, "experiment.max_iterations=100000")
    run.wait_for_iteration(5)
    gone.touch()
    run.workers()[0].kill()
    assert run.finish() == 1
    assert "the package is gone" in run.text()[1]
    (path,) = run.checkpoints()
    assert load_checkpoint(path).meta["iteration"] == run.summary()["iterations"] >= 5


def test_an_env_that_raises_in_step_is_replaced_by_default(live: Live, fragile: list[str]) -> None:
    fragile += ["+env.kwargs.phase=step", "+env.kwargs.after=200"]
    run = live(*fragile, "experiment.max_iterations=20")  # 320 steps in each env
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert summary["worker_restarts"] >= 2
    assert summary["samples_produced"] == summary["samples_consumed"] + summary["samples_abandoned"]


def test_an_env_that_raises_again_at_the_same_place_ends_the_run_with_its_traceback(
    live: Live, fragile: list[str]
) -> None:
    # Its second process raises in the rollout that the first one left unfinished.
    fragile += ["+env.kwargs.phase=step", "+env.kwargs.after=1", "rollout.num_workers=1"]
    run = live(*fragile)
    assert run.finish() == 1
    replaced, ended, *trace = run.text()[1].strip().splitlines()
    assert replaced.startswith("worker 0 (generation 0) raised: RuntimeError: fell through the ")
    assert "(see workers/worker_0.log); replaced (1 of at most 10 per hour)" in replaced
    assert ended.startswith("error: worker 0, step, env Fragile-v0: RuntimeError: fell through")
    assert "see workers/worker_0.log in the run directory; rollout.num_workers=0" in ended
    assert any("fragile_env.py" in line for line in trace)
    (log,) = run.logs.glob("*/*/workers/worker_0.log")
    assert log.read_text().count("RuntimeError: fell through the floor") == 2
    summary = run.summary()
    assert (summary["status"], summary["worker_restarts"]) == ("failed", 1)
    assert summary["samples_produced"] == summary["samples_abandoned"]


def test_without_workers_it_is_told_the_same_way_and_what_was_learned_is_kept(
    live: Live, fragile: list[str]
) -> None:
    fragile += ["+env.kwargs.phase=step", "+env.kwargs.after=100", "rollout.num_workers=0"]
    for lag in (0, 1):  # with 1 it raises while the update runs in its thread
        run = live(*fragile, f"rollout.max_policy_lag={lag}")
        assert run.finish() == 1
        error = run.text()[1]
        assert error.startswith("error: step, env Fragile-v0: RuntimeError: fell through the floor")
        assert "fragile_env.py" in error
        summary = run.summary()
        assert (summary["status"], summary["iterations"]) == ("failed", 6)  # 16 steps in each
        (path,) = run.checkpoints()
        assert load_checkpoint(path).meta["iteration"] == 6
