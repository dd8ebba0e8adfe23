"""Signals to a multirun: the job saves as a single run does, and no other is started."""

import importlib.util
import json
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from live_run import HANG_S, LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]
ONE = "rollout.num_workers=1"  # what a job takes to be saved or killed with all it has
JOBS = (
    *("experiment.seed=1,2", "experiment.max_iterations=100000"),
    *("logging.console=plain", ONE, "-m"),
)


def jobs_of(run: LiveRun) -> list[psutil.Process]:
    return [p for p in run.ps.children() if "sweep_job" in " ".join(p.cmdline())]


def begun(live: Live) -> tuple[LiveRun, list[psutil.Process]]:
    """A sweep in whose first job iteration 3 is done, and that job's processes."""
    run = live(*JOBS)
    run.wait_for_iteration(3)
    (job,) = jobs_of(run)
    processes = [job, *job.children(recursive=True)]
    run.seen.update(processes)
    return run, processes


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_saves_the_job_and_ends_the_sweep(live: Live, signum: int, code: int) -> None:
    run, _ = begun(live)
    run.process.send_signal(signum)
    assert run.finish() == code, run.text()
    out, err = run.text()
    assert "job 0: interrupted" in out and "job 1" not in out
    assert "go on with the same command and resume=" in err and "Traceback" not in err
    summary = run.summary()
    assert summary["status"] == "interrupted"
    (path,) = run.checkpoints()
    assert load_checkpoint(path).meta["iteration"] == summary["iterations"]


def test_a_job_whose_launcher_is_killed_saves_and_ends(live: Live) -> None:
    run, processes = begun(live)
    run.process.kill()
    assert run.process.wait(10) == -signal.SIGKILL
    _, alive = psutil.wait_procs(processes, timeout=HANG_S)
    assert not alive
    summary = run.summary()
    assert summary["status"] == "interrupted"
    assert load_checkpoint(run.checkpoints()[-1]).meta["iteration"] == summary["iterations"]


def test_a_second_signal_ends_job_and_sweep_at_once(live: Live) -> None:
    run = live(
        "rollout.steps_per_env=4000", "rollout.envs_per_worker=32", "rollout.max_policy_lag=0",
        *JOBS,
    )  # fmt: skip
    deadline = time.monotonic() + HANG_S
    while "N_buffer" not in run.text()[0]:
        assert time.monotonic() < deadline, run.text()
        time.sleep(0.1)
    run.process.send_signal(signal.SIGINT)
    run.insist(signal.SIGINT)
    assert run.finish() == 130, run.text()
    assert not run.checkpoints()


@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="joblib is missing")
def test_one_signal_saves_all_jobs_of_joblibs_and_ends_the_sweep(live: Live) -> None:
    run = live(
        "experiment.seed=1,2,3", "experiment.max_iterations=100000", "logging.backends=[csv]",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", ONE, "-m",
    )  # fmt: skip
    deadline = time.monotonic() + HANG_S
    while len(list(run.logs.glob("*/*/metrics.csv"))) < 2:
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.1)
    time.sleep(2.0)  # an iteration or more
    run.seen.update(run.ps.children(recursive=True))
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    summaries = [json.loads(path.read_text()) for path in run.logs.glob("*/*/summary.json")]
    assert [s["status"] for s in summaries] == ["interrupted"] * 2, "the third never began"
    saved = {load_checkpoint(path).meta["iteration"] for path in run.checkpoints()}
    assert saved >= {s["iterations"] for s in summaries}, "and what was saved on the way"


def test_a_job_that_is_killed_takes_no_other_along(live: Live) -> None:
    run = live("experiment.max_iterations=100000,3", "logging.console=plain", ONE, "-m")
    run.wait_for_iteration(3)
    (job,) = jobs_of(run)
    run.seen.update([job, *job.children(recursive=True)])
    job.kill()
    assert run.finish() == 1
    out, err = run.text()
    assert "was killed by SIGKILL" in err and "interrupted" not in out
    summaries = [json.loads(path.read_text()) for path in run.logs.glob("*/*/summary.json")]
    assert "completed" in [s["status"] for s in summaries], "the second never ran"
