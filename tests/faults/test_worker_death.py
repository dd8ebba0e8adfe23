"""Workers that die, hang or raise."""

import signal
import time
from collections.abc import Callable

import pytest
from live_run import LiveRun

from isaac_hydra_ext.checkpoint import load_checkpoint

Live = Callable[..., LiveRun]


def assert_counts_add_up(summary: dict, deaths: int) -> None:
    produced, consumed = summary["samples_produced"], summary["samples_consumed"]
    assert produced == consumed + summary["samples_abandoned"]
    assert summary["samples_abandoned"] <= deaths * 4 * 16
    assert consumed == summary["iterations"] * 2 * 4 * 16 == summary["env_steps"]


def test_a_killed_worker_is_replaced_and_the_run_ends_as_planned(live: Live) -> None:
    run = live("experiment.max_iterations=400")
    for after, victim in ((5, 0), (60, 1)):
        run.wait_for_iteration(after)
        run.workers()[victim].send_signal(signal.SIGKILL)
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert summary["status"] == "completed"
    assert summary["iterations"] == 400
    assert summary["worker_restarts"] == 2
    assert_counts_add_up(summary, deaths=2)


def test_a_replacement_that_is_killed_while_it_starts_is_replaced_too(live: Live) -> None:
    run = live("experiment.max_iterations=300")
    run.wait_for_iteration(3)
    first = set(run.workers())
    run.workers()[0].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
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
    run = live("experiment.max_iterations=60", "rollout.heartbeat_timeout_s=2")
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
    assert "rollout.max_restarts=0 replacements in an hour are used up" in run.text()[1]


@pytest.mark.alone
def test_workers_die_with_a_killed_parent(live: Live) -> None:
    run = live("experiment.max_iterations=100000")
    run.wait_for_iteration(3)
    assert len(run.workers()) == 2
    run.process.send_signal(signal.SIGKILL)
    assert run.finish(timeout=5) == -signal.SIGKILL
