"""Ten minutes of training with a worker killed every few seconds, against an undisturbed run.

python -m benchmarks.soak --json benchmarks/results/soak.json

A user of `kill -9` runs beside the training and watches its iterations go by. A death's recovery
time is the longest pause between two iterations from the kill until three iterations later, less
the median iteration: what somebody who looks at the table would call the interruption. Importing
torch and building the env are measured in processes of their own in the same run, because a
replacement cannot be faster than these.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import psutil

from benchmarks.common import EVALUATION_SEED, REPOSITORY, markdown, run_benchmark, train
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate

TASKS = {"gym_pendulum": "Pendulum-v1"}
OVERRIDES = ("rollout.num_workers=2", "checkpoint.every=200")
DISTURBED = ("rollout.max_restarts=100000", "experiment.max_iterations=10000000")
DURATION_S = 600.0
KILL_EVERY_S = (3.0, 6.0)  # drawn anew each time
SETTLED = 3  # iterations after a kill that may still be slower for it
FLOOR_RUNS = 5


@dataclass
class Watch:
    """When each iteration was shown and when somebody was killed (`time.monotonic`)."""

    iterations: list[float] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)

    def recoveries(self) -> list[float]:
        """Return each kill's recovery time [s]."""
        steps = list(zip(self.iterations, self.iterations[1:], strict=False))
        usual = statistics.median(b - a for a, b in steps)
        found = []
        for kill in self.kills:
            if after := [b - a for a, b in steps if b > kill][:SETTLED]:  # else the run was over
                found.append(max(after) - usual)
        return found


def measure(tasks: dict[str, str], quick: bool) -> dict[str, Any]:
    """Disturb a run, then train as many iterations in peace."""
    duration = 20.0 if quick else DURATION_S
    results = {}
    for env, env_id in tasks.items():
        with TemporaryDirectory() as logs:
            floor = {
                "import_torch_s": _median_time("import torch"),
                "with_env_s": _median_time(
                    f"import torch, gymnasium; gymnasium.make_vec({env_id!r}, 16).reset()"
                ),
            }
            disturbed, watch = _disturbed_run(env, f"{logs}/disturbed", duration)
            limits = [f"experiment.max_iterations={disturbed['iterations']}"]
            peaceful = train([f"env={env}", *OVERRIDES, *limits], f"{logs}/peaceful")
            recoveries = watch.recoveries()
            results[env] = {
                **floor,
                "duration_s": duration,
                "kills": len(watch.kills),
                "recovery_mean_s": statistics.mean(recoveries),
                "recovery_median_s": statistics.median(recoveries),
                "recovery_max_s": max(recoveries),
                "disturbed": disturbed,
                "peaceful": {**peaceful.summary, "evaluation_return": peaceful.evaluate()},
            }
    return results


def _disturbed_run(env: str, logs: str, duration: float) -> tuple[dict[str, Any], Watch]:
    """Train for `duration` seconds among kills; returns its summary and what was seen."""
    command = [sys.executable, "-m", "isaac_hydra_ext.appo_runner", f"env={env}", *OVERRIDES]
    command += [*DISTURBED, f"experiment.output_dir={logs}", "logging.console=plain"]
    watch, chance = Watch(), random.Random(1)
    with ExitStack() as stack:
        errors = stack.enter_context(open(os.devnull, "w"))
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        stack.callback(process.kill)
        reader = Thread(target=_read, args=(process, watch))
        reader.start()
        while not watch.iterations:
            assert process.poll() is None
            time.sleep(0.1)
        end = time.monotonic() + duration
        while time.monotonic() < end:
            time.sleep(chance.uniform(*KILL_EVERY_S))
            # Any process of its place: one that is still starting may be hit, too.
            workers = [p for p in psutil.Process(process.pid).children() if _is_worker(p)]
            if workers:
                watch.kills.append(time.monotonic())
                chance.choice(workers).kill()
        process.send_signal(signal.SIGINT)
        process.wait(60)
        reader.join(60)
    (path,) = Path(logs).glob("*/*/summary.json")
    summary = json.loads(path.read_text())
    checkpoint = find_checkpoint(str(path.parent), path.parent.parent).checkpoint
    evaluation = evaluate(checkpoint, 32, EVALUATION_SEED)["mean_return"]
    return {**summary, "evaluation_return": evaluation}, watch


def _read(process: subprocess.Popen[str], watch: Watch) -> None:
    """Note when each iteration is shown (a thread: reading blocks)."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("iteration "):
            watch.iterations.append(time.monotonic())


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _median_time(statement: str) -> float:
    times = []
    for _ in range(FLOOR_RUNS):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", statement], check=True, timeout=120)
        times.append(time.monotonic() - started)
    return statistics.median(times)


def render(results: dict[str, Any]) -> str:
    """Return the tables."""
    lines = []
    for env, r in results.items():
        header = (env, "with kills", "undisturbed")
        rows = []
        for key in (
            *("iterations", "samples_produced", "samples_consumed", "samples_abandoned"),
            *("worker_restarts", "mean_return", "evaluation_return", "fps"),
        ):
            shown = [r[run][key] for run in ("disturbed", "peaceful")]
            rows.append((key.replace("_", " "), *(_written(value) for value in shown)))
        lines += [markdown(header, rows), ""]
        beyond = r["recovery_mean_s"] - r["with_env_s"]
        lines.append(
            f"{r['kills']} kills in {r['duration_s']:g} s; recovery mean "
            f"{r['recovery_mean_s']:.2f} s, median {r['recovery_median_s']:.2f} s, at most "
            f"{r['recovery_max_s']:.2f} s; importing torch takes {r['import_torch_s']:.2f} s, with "
            f"the env {r['with_env_s']:.2f} s: {beyond:.2f} s beyond that"
        )
    return "\n".join(lines)


def _written(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
