"""Signals to the run: once, finish the iteration and save; twice, now."""

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import HANG_S, LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_one_signal_saves_and_says_how_to_go_on(live: Live, signum: int, code: int) -> None:
    run = live("experiment.max_iterations=100000")
    run.wait_for_iteration(5)
    run.process.send_signal(signum)
    assert run.finish() == code, run.text()
    assert "go on with the same command and resume=" in run.text()[1]
    (path,) = run.checkpoints()
    summary = run.summary()
    assert summary["status"] == "interrupted"
    assert load_checkpoint(path).meta["iteration"] == summary["iterations"]
    assert summary["samples_produced"] == (
        summary["samples_consumed"] + summary["samples_abandoned"]
    )


def test_the_run_goes_on_from_an_interrupt(live: Live) -> None:
    run = live("experiment.max_iterations=100000")
    run.wait_for_iteration(5)
    run.process.send_signal(signal.SIGINT)
    assert run.finish() == 130
    done, where = run.summary()["iterations"], run.checkpoints()[0].parent.parent
    again = live(f"resume={where}", f"experiment.max_iterations={done + 10}")
    assert again.finish() == 0, again.text()
    assert again.summary()["iterations"] == done + 10


def test_a_second_signal_ends_it_at_once(live: Live) -> None:
    # Iterations of many seconds; with the first signal alone there would be a checkpoint of one.
    run = live(
        "rollout.steps_per_env=4000", "rollout.envs_per_worker=32", "rollout.max_policy_lag=0"
    )
    deadline = time.monotonic() + HANG_S
    while "N_buffer" not in run.text()[0]:
        assert time.monotonic() < deadline, run.text()
        time.sleep(0.1)
    run.workers()
    run.process.send_signal(signal.SIGINT)
    run.insist(signal.SIGINT)
    assert run.finish() == 130, run.text()
    assert not run.checkpoints()


def test_a_reader_that_leaves_does_not_end_the_run(live: Live, tmp_path: Path) -> None:
    run = live(
        "experiment.max_iterations=15", "rollout.num_workers=1"
    )  # for its directory and its checks
    assert run.finish() == 0
    for name, reader in (("at_once", "head -n 1"), ("later", "sed /^run:/q")):
        line = f"{shlex.join(run.process.args)} experiment.name={name} | {reader}"  # type: ignore[arg-type]
        done = subprocess.run(
            ["bash", "-c", f"export PYTHONUNBUFFERED=1; set -o pipefail; {line}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        (path,) = run.logs.glob(f"{name}/*/summary.json")
        assert json.loads(path.read_text())["status"] == "completed"
        assert list(path.parent.glob("checkpoints/model_15.safetensors"))


def test_a_signal_to_the_whole_job_saves_and_starts_no_new_worker(live: Live) -> None:
    for extra in ((), ("rollout.on_worker_failure=stop",)):
        run = live("experiment.max_iterations=100000", *extra)
        run.wait_for_iteration(5)
        workers = run.workers()
        run.process.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert run.finish() == 143, run.text()
        summary = run.summary()
        assert summary["status"] == "interrupted"
        assert load_checkpoint(run.checkpoints()[-1]).meta["iteration"] == summary["iterations"]


def test_a_run_that_was_told_to_ignore_a_hangup_does(live: Live) -> None:
    run = live("experiment.max_iterations=60", hangup=signal.SIG_IGN)  # what `nohup` does
    run.wait_for_iteration(5)
    run.process.send_signal(signal.SIGHUP)
    assert run.finish() == 0, run.text()
    assert run.summary()["iterations"] == 60


# A simulator that takes the signals as it starts, from C as LLVM does: Python still believes that
# its own handlers are there.
TAKES_SIGNALS = """
import ctypes, signal, sys
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv
from isaac_hydra_ext.cli.train import main

class Rude(PendulumEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        ctypes.CDLL(None).signal(signal.SIGTERM, 0)

gymnasium.register("Rude-v0", Rude, max_episode_steps=200)
main()
"""


def test_a_simulator_that_takes_the_signals_does_not_keep_them(live: Live) -> None:
    run = live(
        "env=gym_any", "env.id=Rude-v0", "experiment.max_iterations=100000",
        "rollout.num_workers=0", program=TAKES_SIGNALS,
    )  # fmt: skip
    run.wait_for_iteration(3)
    for _ in range(2):  # at a time, as `timeout` does
        run.process.send_signal(signal.SIGTERM)
    assert run.finish() == 143, run.text()
    assert "stopped by signal 15 after iteration" in run.text()[1]
    assert run.checkpoints(), "saved"
