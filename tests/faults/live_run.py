"""Runs as subprocesses that the tests hurt, and what must be true after them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from isaac_hydra_ext.system.stop_signals import ECHO_S

HANG_S = 600  # many times what anything here takes, also on a busy machine
LONG = (
    "rollout.num_workers=2", "rollout.envs_per_worker=4", "rollout.steps_per_env=16",
    "logging.report=false",  # a second of matplotlib each
)  # fmt: skip


def is_still(process: psutil.Process, what: Callable[[psutil.Process], bool]) -> bool:
    """Ask a process that may have been reaped since it was listed."""
    try:
        return what(process)
    except psutil.NoSuchProcess:
        return False


def runs_a_worker(process: psutil.Process) -> bool:
    return process.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(process.cmdline())


class LiveRun:
    """A training in a subprocess of its own."""

    def __init__(
        self, directory: Path, *overrides: str, program: str = "", hangup: Any = signal.SIG_DFL
    ) -> None:
        self.logs = directory / "logs"
        line = [sys.executable, "-m", "isaac_hydra_ext.appo_runner"]
        if program:  # Python code in its place
            line = [sys.executable, "-c", program]
        line += [f"experiment.output_dir={self.logs}", *LONG, *overrides]
        self.out = (directory / "stdout").open("w+")
        self.err = (directory / "stderr").open("w+")
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}

        def reset() -> None:  # whoever runs the tests may be deaf to signals
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, hangup)

        self.process = subprocess.Popen(
            line,
            cwd=directory,
            stdout=self.out,
            stderr=self.err,
            env=env,
            start_new_session=True,
            preexec_fn=reset,
        )
        self.ps = psutil.Process(self.process.pid)
        self.seen: set[psutil.Process] = set()

    def workers(self) -> list[psutil.Process]:
        """Worker processes in the order they were started (the resource tracker is none)."""
        found = [p for p in self.ps.children() if is_still(p, runs_a_worker)]
        self.seen.update(found)
        return sorted(found, key=lambda p: p.create_time())

    def text(self) -> tuple[str, str]:
        for f in (self.out, self.err):
            f.flush()
        return Path(self.out.name).read_text(), Path(self.err.name).read_text()

    def wait_for_iteration(self, n: int, timeout: float = HANG_S) -> None:
        """Wait until iteration n is done."""
        deadline = time.monotonic() + timeout
        while f"iteration {n}/" not in self.text()[0]:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)
        self.workers()

    def insist(self, signum: int) -> None:
        """Send a signal once more, when the first has been heard and this is no echo of it."""
        deadline = time.monotonic() + HANG_S
        while "once more to stop now" not in self.text()[1]:
            assert self.process.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.05)
        time.sleep(2 * ECHO_S)
        self.process.send_signal(signum)

    def finish(self, timeout: float = HANG_S) -> int:
        """Wait for the end; nothing may be left of it."""
        code = self.process.wait(timeout)
        _, alive = psutil.wait_procs(self.seen, timeout=HANG_S)
        assert not alive, f"left running: {alive}"
        return code

    def summary(self) -> dict[str, Any]:
        (path,) = self.logs.glob("*/*/summary.json")
        return json.loads(path.read_text())

    def checkpoints(self) -> list[Path]:
        """In the order of their iterations: 100 comes after 80."""
        return sorted(self.logs.glob("*/*/checkpoints/*"), key=lambda p: (len(p.name), p.name))

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        for process in self.seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
