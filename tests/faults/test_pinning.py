"""Workers on cores of their own, their replacements too."""

import os
import re
import signal
import time
from collections.abc import Callable

import pytest
from live_run import HANG_S, LiveRun

Live = Callable[..., LiveRun]
pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and Linux",
)


def test_a_worker_and_its_replacement_run_on_the_core_that_the_console_names(live: Live) -> None:
    run = live("rollout.num_workers=1", "experiment.max_iterations=100000")
    run.wait_for_iteration(3)
    named = re.search(r"pinned to cores (\d+); the learner has (\d+)", run.text()[0])
    if named is None:  # another run on this machine has the cores
        assert "not pinned to cores: other runs have taken" in run.text()[0]
        return
    everything = os.sched_getaffinity(0)
    (first,) = run.workers()
    assert first.cpu_affinity() == [int(named[1])]
    assert set(run.ps.cpu_affinity()) == everything - {int(named[1])}
    first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + HANG_S
    while [w.cpu_affinity() for w in run.workers() if w != first] != [[int(named[1])]]:
        assert time.monotonic() < deadline, run.text()
        time.sleep(0.05)


def test_nothing_is_pinned_where_that_is_not_wanted(live: Live) -> None:
    run = live("rollout.num_workers=1", "experiment.max_iterations=100000", "rollout.pin_cores=no")
    run.wait_for_iteration(3)
    assert "workers are not pinned to cores: rollout.pin_cores=false" in run.text()[0]
    (worker,) = run.workers()
    assert set(worker.cpu_affinity()) == os.sched_getaffinity(0)
