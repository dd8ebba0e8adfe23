"""How many more steps/s R ranks learn from than one, on a CPU by gloo, W = 3 each.

python -m benchmarks.ranks --json benchmarks/results/ranks.json

All runs of a task are started at once, and then take turns: all but one are paused. Each rank has
as many cores as it would have among the most ranks, so that a run of R has R times as many; two
threads of one core belong to one rank. What is told is the rate over R times that of one rank, and
over R runs of one rank side by side on the same cores, which share nothing but the machine. Linux;
needs no package but mjlab.
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
from collections.abc import Iterator, Sequence
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

    @property
    def iterations(self) -> int:
        """How many have ended."""
        if self._process.poll() is not None:
            raise RuntimeError("".join(self._said[-20:]))
        return len(self._times)

    def rate_since(self, before: int) -> float:
        """Return its rate since its iteration `before`, which was paused [env steps/s]."""
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


def turn(runs: Sequence[Run], seconds: float) -> float:
    """Let these alone train for a while, at the same time; returns their rate [env steps/s].

    The first iteration, which was paused, does not count; the last one ends the turn.
    """
    before = [run.iterations for run in runs]
    for run in runs:
        run.signal(signal.SIGCONT)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or any(
        run.iterations < count + 3 for run, count in zip(runs, before, strict=True)
    ):
        time.sleep(0.01)
    for run in runs:
        run.signal(signal.SIGSTOP)
    return sum(run.rate_since(count) for run, count in zip(runs, before, strict=True))


def _cores() -> list[int]:
    """Return the cores that we may use, the threads of one side by side."""
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    own = os.sched_getaffinity(0)
    return sorted(own, key=lambda cpu: (Path(topology.format(cpu)).read_text(), cpu))


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
def _running(
    overrides: list[str], counts: tuple[int, ...]
) -> Iterator[dict[int, tuple[list[Run], list[Run]]]]:
    """Start and pause all runs; gives, by R, the run of R ranks and R runs of one."""
    cores, most = _cores(), max(counts)
    each = max(1, len(cores) // most)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(ranks: int, first: int) -> Run:
            run = Run(ranks, cores[first * each : (first + ranks) * each], overrides, directory)
            stack.callback(run.end)
            return run

        alone = [start(1, first) for first in range(most)]
        together = {ranks: start(ranks, 0) if ranks > 1 else alone[0] for ranks in counts}
        runs = {*alone, *together.values()}
        for run in runs:
            run.wait_until_warm()
        for run in runs:
            run.signal(signal.SIGSTOP)
        yield {ranks: ([run], alone[:ranks]) for ranks, run in together.items()}


def measure(tasks: dict[str, list[str]], quick: bool) -> dict[str, Any]:
    """Measure each task; see the module."""
    rounds, seconds = (1, 0.5) if quick else (ROUNDS, TURN_S)
    counts = RANKS[:2] if quick else RANKS
    results = {}
    for name, overrides in tasks.items():
        rates: dict[int, tuple[list[float], list[float]]] = {ranks: ([], []) for ranks in counts}
        with _running(overrides, counts) as runs:
            for _ in range(rounds):
                for ranks, (together, alone) in runs.items():
                    rates[ranks][0].append(turn(together, seconds))
                    rates[ranks][1].append(turn(alone, seconds) if ranks > 1 else rates[1][0][-1])
                    print(name, ranks, *(f"{found[-1]:,.0f}" for found in rates[ranks]), flush=True)
        one = statistics.median(rates[1][0])
        results[name] = [
            {
                "ranks": ranks,
                "steps_per_s": statistics.median(together),
                "of_linear": statistics.median(together) / (ranks * one),
                "of_side_by_side": statistics.median(together) / statistics.median(alone),
                "turns": together,
                "side_by_side_turns": alone,
            }
            for ranks, (together, alone) in rates.items()
        ]
    return results


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = [
        (
            *(name, row["ranks"], f"{row['steps_per_s']:,.0f}", f"{row['of_linear']:.2f}"),
            f"{row['of_side_by_side']:.2f}",
        )
        for name, of_task in results.items()
        for row in of_task
    ]
    header = ["task", "ranks R", "steps/s", "over R x that of one", "over R runs side by side"]
    return markdown(header, rows)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
