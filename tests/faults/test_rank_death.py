"""A rank that dies ends the others, which save what they have all learned."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest
from live_run import LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]
RANKS = (
    "experiment.devices=[cpu,cpu]", "rollout.num_workers=0", "policy.hidden_dims=[8]",
    "experiment.max_iterations=100000", "checkpoint.every=100000",
    "rollout.heartbeat_timeout_s=4",
)  # fmt: skip


def second_rank(run: LiveRun) -> psutil.Process:
    """The process of rank 1, after all that the run has started is known."""
    run.seen.update(run.ps.children(recursive=True))
    (rank,) = (p for p in run.ps.children() if p.environ().get("RANK") == "1")
    return rank


@pytest.mark.alone
@pytest.mark.parametrize(
    "signum", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.release)]
)
def test_a_rank_that_dies_or_hangs_ends_the_run_with_a_checkpoint(live: Live, signum: int) -> None:
    run = live(*RANKS)
    run.wait_for_iteration(5)
    second_rank(run).send_signal(signum)
    assert run.finish() == 1, run.text()
    why = "was killed by SIGKILL" if signum == signal.SIGKILL else "silent for 4 s"
    assert (
        f"error: rank 1 of 2: {'it has been ' * (signum != signal.SIGKILL)}{why}" in run.text()[1]
    )
    assert "go on with the same command and resume=" in run.text()[1]
    (path,) = run.checkpoints()
    summary = run.summary()
    assert load_checkpoint(path).meta["iteration"] == summary["iterations"] >= 5
    counts = [summary[f"samples_{name}"] for name in ("produced", "consumed", "abandoned")]
    assert counts[0] == counts[1] + counts[2]


@pytest.mark.alone
def test_the_other_ranks_save_what_the_first_cannot_once_it_is_killed(live: Live) -> None:
    run = live(*RANKS)
    run.wait_for_iteration(5)
    second_rank(run)
    os.kill(run.process.pid, signal.SIGKILL)
    run.finish()
    (path,) = run.checkpoints()
    assert load_checkpoint(path).meta["iteration"] >= 5


@pytest.mark.alone
def test_a_signal_ends_all_ranks_after_the_same_iteration(live: Live) -> None:
    run = live(*RANKS)
    run.wait_for_iteration(5)
    second_rank(run)
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130, run.text()
    (path,) = run.checkpoints()
    summary = run.summary()
    assert load_checkpoint(path).meta["iteration"] == summary["iterations"]
    assert summary["samples_produced"] == (
        summary["samples_consumed"] + summary["samples_abandoned"]
    )
