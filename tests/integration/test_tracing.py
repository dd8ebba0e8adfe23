"""`logging.profile`: traces that Perfetto opens, of the learner and of each worker."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]
TINY = (
    *("rollout.envs_per_worker=4", "rollout.steps_per_env=16", "experiment.max_iterations=4"),
    "logging.report=false",
)


def names(trace: Path) -> set[str]:
    with gzip.open(trace) as file:
        return {event.get("name", "") for event in json.load(file)["traceEvents"]}


@pytest.mark.parametrize("workers", [2, 0])
def test_the_asked_iterations_are_traced_in_every_process(
    command: Command, tmp_path: Path, workers: int
) -> None:
    done = command(*TINY, f"rollout.num_workers={workers}", "logging.profile=[1,2]")
    assert done.returncode == 0, done.stderr
    (profile,) = tmp_path.glob("logs/pendulum-v1/*/profile")
    processes = ["learner", *(f"worker_{w}" for w in range(workers))]
    assert sorted(p.name for p in profile.iterdir()) == [f"{p}.json.gz" for p in processes]
    for process in processes:
        found = names(profile / f"{process}.json.gz")
        iterations = {name for name in found if name.startswith("iteration ")}
        assert iterations == {"iteration 1", "iteration 2"}
        assert any(name.startswith("aten::") for name in found)
    assert f"trace: {profile / 'learner.json.gz'} (open it in" in done.stdout


def test_a_run_that_ends_in_the_window_still_has_its_trace(
    command: Command, tmp_path: Path
) -> None:
    done = command(*TINY, "rollout.num_workers=1", "logging.profile=[3,12]")
    assert done.returncode == 0, done.stderr
    for trace in ("learner", "worker_0"):
        (path,) = tmp_path.glob(f"logs/pendulum-v1/*/profile/{trace}.json.gz")
        assert "iteration 3" in names(path)


def test_iterations_that_the_run_does_not_have_are_named(command: Command) -> None:
    done = command(*TINY, "rollout.num_workers=0", "logging.profile=[4,6]")
    assert done.returncode == 0, done.stderr
    said = "logging.profile=[4,6]: nothing to trace, the run has iterations 0 to 3"
    assert said in done.stdout


SLOW_TRACE = """
import time
from torch.profiler import ProfilerActivity, profile
from isaac_hydra_ext.system import tracing
with profile(activities=[ProfilerActivity.CPU]):  # the first takes seconds, without a heartbeat
    pass
tracing.Tracer._write = lambda self: time.sleep(15)
"""


@pytest.mark.release
def test_a_worker_that_writes_a_long_trace_is_not_taken_for_a_dead_one(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_trace.py").write_text(SLOW_TRACE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    done = command(
        *TINY, "env.imports=[slow_trace]", "rollout.num_workers=1", "logging.profile=[1,1]",
        "experiment.max_iterations=8", "rollout.heartbeat_timeout_s=10",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (summary,) = tmp_path.glob("logs/pendulum-v1/*/summary.json")
    assert json.loads(summary.read_text())["worker_restarts"] == 0, done.stderr
