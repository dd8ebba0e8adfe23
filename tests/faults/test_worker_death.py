"""Workers that die, hang or raise."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import HANG_S, LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]
LIGHT = ("ppo.update_epochs=1", "ppo.num_mini_batches=1")


def assert_counts_add_up(summary: dict, deaths: int) -> None:
    produced, consumed = summary["samples_produced"], summary["samples_consumed"]
    assert produced == consumed + summary["samples_abandoned"]
    assert summary["samples_abandoned"] <= deaths * 4 * 16
    assert consumed == summary["iterations"] * 2 * 4 * 16 == summary["env_steps"]


def test_a_killed_worker_is_replaced_and_the_run_ends_as_planned(live: Live) -> None:
    run = live("experiment.max_iterations=150", *LIGHT)
    for after, victim in ((5, 0), (60, 1)):
        run.wait_for_iteration(after)
        run.workers()[victim].send_signal(signal.SIGKILL)
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert summary["status"] == "completed"
    assert summary["iterations"] == 150
    assert summary["worker_restarts"] == 2
    assert_counts_add_up(summary, deaths=2)


def test_a_replacement_that_is_killed_while_it_starts_is_replaced_too(live: Live) -> None:
    run = live("experiment.max_iterations=60", *LIGHT)
    run.wait_for_iteration(3)
    first = set(run.workers())
    run.workers()[0].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + HANG_S
    while not (new := set(run.workers()) - first):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    new.pop().send_signal(signal.SIGKILL)  # importing torch takes longer than this
    assert run.finish() == 0, run.text()
    assert run.summary()["worker_restarts"] == 2
    assert_counts_add_up(run.summary(), deaths=2)


def test_stop_names_the_signal(live: Live) -> None:
    run = live("experiment.max_iterations=100000", "rollout.on_worker_failure=stop")
    run.wait_for_iteration(3)
    run.workers()[1].send_signal(signal.SIGKILL)
    assert run.finish() == 1
    assert "worker 1 (generation 0) was killed by SIGKILL" in run.text()[1]
    assert run.summary()["status"] == "failed"
    (path,) = run.checkpoints()
    assert load_checkpoint(path).meta["iteration"] == run.summary()["iterations"]


def test_deterministic_implies_stop(live: Live) -> None:
    run = live("experiment.max_iterations=100000", "rollout.deterministic=true")
    run.wait_for_iteration(3)
    run.workers()[0].send_signal(signal.SIGKILL)
    assert run.finish() == 1
    assert "SIGKILL" in run.text()[1]


@pytest.mark.alone
def test_a_silent_worker_is_killed_and_replaced(live: Live) -> None:
    run = live("experiment.max_iterations=20", "rollout.heartbeat_timeout_s=15")
    run.wait_for_iteration(3)
    run.workers()[0].send_signal(signal.SIGSTOP)
    assert run.finish() == 0, run.text()
    assert run.summary()["worker_restarts"] == 1
    assert_counts_add_up(run.summary(), deaths=1)


def test_a_spent_budget_stops_the_run(live: Live) -> None:
    run = live("experiment.max_iterations=100000", "rollout.max_restarts=0")
    run.wait_for_iteration(3)
    run.workers()[0].send_signal(signal.SIGKILL)
    assert run.finish() == 1
    assert "rollout.max_restarts=0 replacements per hour are used up" in run.text()[1]


def test_workers_die_with_a_killed_parent(live: Live) -> None:
    run = live("experiment.max_iterations=100000")
    run.wait_for_iteration(3)
    assert len(run.workers()) == 2
    run.process.send_signal(signal.SIGKILL)
    assert run.finish() == -signal.SIGKILL


@pytest.mark.release
def test_a_pause_of_all_processes_kills_no_worker(live: Live) -> None:
    run = live("experiment.max_iterations=100000", "rollout.heartbeat_timeout_s=10")
    run.wait_for_iteration(3)
    processes = [*run.workers(), run.ps]  # the learner last: it then waits for a rollout
    for process in processes:
        process.suspend()
        time.sleep(0.2)
    time.sleep(20.0)
    run.ps.resume()
    time.sleep(0.5)
    for process in processes[:-1]:
        process.resume()
    run.wait_for_iteration(run.text()[0].count("iteration ") + 5)
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    assert run.summary()["worker_restarts"] == 0


SLOW_AGAIN = """
import os, time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class SlowAgain(PendulumEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if os.path.exists(os.environ["SLOW_FROM_NOW_ON"]):
            time.sleep(1000)

gymnasium.register("SlowAgain-v0", SlowAgain, max_episode_steps=50)
"""


def test_a_signal_does_not_wait_for_a_replacement(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_again.py").write_text(SLOW_AGAIN)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("SLOW_FROM_NOW_ON", str(tmp_path / "slow"))
    run = live(
        "env=gym_any", "env.id=SlowAgain-v0", "env.imports=[slow_again]",
        "experiment.max_iterations=100000",
    )  # fmt: skip
    run.wait_for_iteration(3)
    (tmp_path / "slow").touch()
    run.workers()[0].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + HANG_S
    while "replaced" not in run.text()[1]:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    run.workers()
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == 143, run.text()
    summary = run.summary()
    assert summary["status"] == "interrupted"
    assert load_checkpoint(run.checkpoints()[-1]).meta["iteration"] == summary["iterations"]


NO_MORE_PROCESSES = """
import errno, os
from isaac_hydra_ext.cli.train import main
from isaac_hydra_ext.workers import launching

spawn, calls = launching.spawn_worker, []

def spawn_two(*arguments):
    calls.append(arguments)
    if len(calls) > 2:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return spawn(*arguments)

launching.spawn_worker = spawn_two
main()
"""


def test_a_worker_that_cannot_be_replaced_ends_the_run_with_a_checkpoint(live: Live) -> None:
    run = live("experiment.max_iterations=100000", program=NO_MORE_PROCESSES)
    run.wait_for_iteration(3)
    run.workers()[0].send_signal(signal.SIGKILL)
    assert run.finish() == 1
    assert "worker 0: cannot start a process: " in run.text()[1]
    assert "Traceback" not in run.text()[1]
    summary = run.summary()
    assert_counts_add_up(summary, deaths=4)  # both workers' unfinished rollouts
    assert load_checkpoint(run.checkpoints()[-1]).meta["iteration"] == summary["iterations"]


HURRIED = """
from isaac_hydra_ext.cli.train import main
from isaac_hydra_ext.workers.handle import WorkerHandle

ask = WorkerHandle.ask

def hurried(self, kind, phase, timeout_s, body):
    ask(self, kind, phase, 2.0 if self.generation == 1 else timeout_s, body)

WorkerHandle.ask = hurried
main()
"""


def test_a_replacement_that_hangs_while_it_builds_is_killed_and_replaced(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_again.py").write_text(SLOW_AGAIN)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    slow = tmp_path / "slow"
    monkeypatch.setenv("SLOW_FROM_NOW_ON", str(slow))
    run = live(
        *("env=gym_any", "env.id=SlowAgain-v0", "env.imports=[slow_again]"),
        *("experiment.max_iterations=100000", "rollout.num_workers=1"),
        program=HURRIED,
    )
    run.wait_for_iteration(3)
    slow.touch()
    run.workers()[0].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + HANG_S
    while "2 of at most 10 per hour" not in run.text()[1]:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    slow.unlink()
    run.wait_for_iteration(run.text()[0].count("iteration ") + 3)
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    said = "worker 0 (generation 1) built no environment within 600 s (rollout.startup_timeout_s) "
    assert said + "and was killed; replaced (2 of at most 10 per hour)" in run.text()[1]
    assert run.summary()["worker_restarts"] == 2
    produced, consumed = (run.summary()[f"samples_{what}"] for what in ("produced", "consumed"))
    assert produced == consumed + run.summary()["samples_abandoned"]


SLOW_AT_FIRST = """
import time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class SlowAtFirst(PendulumEnv):
    first = True

    def step(self, action):
        if SlowAtFirst.first:
            time.sleep(6)  # compiles
        SlowAtFirst.first = False
        return super().step(action)

gymnasium.register("SlowAtFirst-v0", SlowAtFirst, max_episode_steps=50)
"""


def test_a_worker_whose_first_step_compiles_is_waited_for_as_for_a_start(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_at_first.py").write_text(SLOW_AT_FIRST)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    run = live(
        "env=gym_any", "env.id=SlowAtFirst-v0", "env.imports=[slow_at_first]",
        "experiment.max_iterations=3", "rollout.heartbeat_timeout_s=2", "rollout.num_workers=1",
    )  # fmt: skip
    assert run.finish() == 0, run.text()
    assert run.summary()["worker_restarts"] == 0
    (said,) = run.text()[1].strip().splitlines()
    assert said.startswith("worker 0 (generation 0): no step of its first rollout has ended for ")
    assert "up to 600 s (rollout.startup_timeout_s)" in said


@pytest.mark.mjlab
def test_a_replacement_goes_on_with_the_curriculum(live: Live) -> None:
    pytest.importorskip("mjlab")
    run = live(
        "env=mjlab_cartpole_balance", "rollout.num_workers=1", "rollout.envs_per_worker=2",
        "rollout.steps_per_env=8", "experiment.max_iterations=100000", "checkpoint.every=1",
    )  # fmt: skip

    def left() -> int:
        files = list(run.logs.glob("*/*/workers/worker_0_handover.json"))
        return json.loads(files[0].read_text())["common_step_counter"] if files else 0

    deadline = time.monotonic() + HANG_S  # a first start compiles kernels
    while left() < 40:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.1)
    run.workers()[0].send_signal(signal.SIGKILL)
    counter = left()
    while "replaced" not in run.text()[1]:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    before = run.text()[0].count("iteration ")
    run.wait_for_iteration(before + 5)  # past what the dead one had finished
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    assert run.summary()["worker_restarts"] == 1
    newest = max((load_checkpoint(path).meta for path in run.checkpoints()),
                 key=lambda meta: (bool(meta["env_states"]), meta["iteration"]))  # fmt: skip
    assert newest["iteration"] > before + 2
    assert newest["env_states"][0]["common_step_counter"] > counter
