"""The run's directory is moved or deleted under a run that goes on."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import HANG_S, LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.reports.curves import find_runs
from isaac_hydra_ext.reports.events import SAMPLES, read_points


def wait_for(run: LiveRun, text: str) -> None:
    deadline = time.monotonic() + HANG_S
    while text not in run.text()[1]:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_run_whose_directory_is_gone_makes_it_again_and_keeps_what_it_learns(
    live: Callable[..., LiveRun], tmp_path: Path, how: str
) -> None:
    run = live("experiment.max_iterations=100000", "checkpoint.every=100000")
    run.wait_for_iteration(3)
    if how == "moved":
        run.logs.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(run.logs)
    run.workers()[0].send_signal(signal.SIGKILL)
    wait_for(run, "was moved or deleted, and is made again")
    wait_for(run, "replaced (")
    run.wait_for_iteration(len(run.text()[0].splitlines()) + 20)
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == 143, run.text()
    said = run.text()[1]
    assert "Traceback" not in said and said.count("was moved or deleted") == 1
    summary = run.summary()
    (path,) = run.checkpoints()
    assert load_checkpoint(path).meta["iteration"] == summary["iterations"]
    (found,) = find_runs([path.parents[1].parent])
    assert read_points(found, SAMPLES, "iterations").steps[-1] == summary["iterations"]
    assert f"resume={found}" in said
