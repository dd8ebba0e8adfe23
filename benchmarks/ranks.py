"""How many more steps/s R ranks learn from than one, on a CPU by gloo, W = 3 each.

python -m benchmarks.ranks --json benchmarks/results/ranks.json

All runs of a task are started at once, and then take turns: all but one are paused. Each rank has
as many cores as it would have among the most ranks, so that a run of R has R times as many. What is
told is the rate over R times that of one rank. Linux; needs no package but mjlab.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, markdown, run_benchmark

RANKS = (1, 2, 4)
WORKERS = 3
TASKS: dict[str, list[str]] = {
    "mjlab Cartpole": [
        "env=mjlab_cartpole_balance", "rollout.envs_per_worker=64", "rollout.steps_per_env=16"
    ],
    "Pendulum": [
        "env=gym_pendulum", "rollout.envs_per_worker=64", "rollout.steps_per_env=32"
    ],
}  # fmt: skip
ROUNDS, TURN_S = 5, 6.0
WARM_ITERATIONS = 5
START_LIMIT_S = 300.0
END_LIMIT_S = 30.0


class Run:
    """A training of R ranks in processes of its own, on its cores."""

    def __init__(self, ranks: int, cores: list[int], overrides: list[str], directory: Path) -> None:
        """Start it."""
        self.ranks, self._times, self._said = ranks, [], []
        devices = ["experiment.devices=[" + ",".join(["cpu"] * ranks) + "]"] if ranks > 1 else []
        line = [
            *(sys.executable, "-m", "isaac_hydra_ext.appo_runner", *overrides, *devices),
            f"rollout.num_workers={WORKERS}", "experiment.max_iterations=1000000",
            f"experiment.output_dir={directory}", "logging.console=plain", "logging.backends=[]",
            "checkpoint.every=1000000", "logging.report=false", "rollout.pin_cores=false",
        ]  # fmt: skip
        paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            line,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)
            if re.match(r"iteration \d+/", line):
                self._times.append(time.monotonic())

    @property
    def samples(self) -> int:
        """N_buffer of all ranks."""
        found = re.search(r"^N_buffer = .* = (\d+) samples", "".join(self._said), re.MULTILINE)
        assert found, self._said
        return self.ranks * int(found[1])

    def wait_until_warm(self) -> None:
        """Wait for the first iterations, which compile and fill caches."""
        deadline = time.monotonic() + START_LIMIT_S
        while len(self._times) < WARM_ITERATIONS:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("".join(self._said[-20:]))
            time.sleep(0.05)

    def signal(self, signum: int) -> None:
        """Send all of its processes a signal."""
        for pid in _tree(self._process.pid):
            os.kill(pid, signum)

    def turn(self, seconds: float) -> float:
        """Let it alone train for a while; returns its rate [env steps/s].

        The first iteration, which was paused, does not count; the last one ends the turn.
        """
        self.signal(signal.SIGCONT)
        before, deadline = len(self._times), time.monotonic() + seconds
        while time.monotonic() < deadline or len(self._times) < before + 3:
            if self._process.poll() is not None:
                raise RuntimeError("".join(self._said[-20:]))
            time.sleep(0.01)
        self.signal(signal.SIGSTOP)
        times = self._times[before:]
        return (len(times) - 1) * self.samples / (times[-1] - times[0])

    def end(self) -> None:
        """Have it end by itself, or kill it."""
        pids = _tree(self._process.pid)
        self.signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)


def _tree(root: int) -> list[int]:
    """Return a process and all that it has started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


@contextmanager
def _running(overrides: list[str], counts: tuple[int, ...]) -> Iterator[list[Run]]:
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // max(counts))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = []
        for ranks in counts:
            run = Run(ranks, cores[: ranks * each], overrides, directory)
            stack.callback(run.end)
            runs.append(run)
        for run in runs:
            run.wait_until_warm()
        for run in runs:
            run.signal(signal.SIGSTOP)
        yield runs


def measure(tasks: dict[str, list[str]], quick: bool) -> dict[str, Any]:
    """Measure each task; see the module."""
    rounds, seconds = (1, 0.5) if quick else (ROUNDS, TURN_S)
    counts = RANKS[:2] if quick else RANKS
    results = {}
    for name, overrides in tasks.items():
        rates: dict[int, list[float]] = {ranks: [] for ranks in counts}
        with _running(overrides, counts) as runs:
            for _ in range(rounds):
                for run in runs:
                    rates[run.ranks].append(run.turn(seconds))
        one = statistics.median(rates[1])
        results[name] = [
            {
                "ranks": ranks,
                "steps_per_s": statistics.median(found),
                "of_linear": statistics.median(found) / (ranks * one),
                "turns": found,
            }
            for ranks, found in rates.items()
        ]
    return results


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = [
        (name, row["ranks"], f"{row['steps_per_s']:,.0f}", f"{row['of_linear']:.2f}")
        for name, of_task in results.items()
        for row in of_task
    ]
    return markdown(["task", "ranks R", "steps/s", "over R x that of one"], rows)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
