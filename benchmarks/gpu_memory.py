"""What a training takes of a GPU's memory at its peak, simulation included: ours against rsl_rl.

python -m benchmarks.gpu_memory --json benchmarks/results/h200/gpu_memory.json ppo.precision=bf16

mjlab's Go1 flat, the task's own networks and sizes, some iterations of each trainer in a process of
its own. The driver is asked ten times a second what is in use; what was before is taken off.
"""

import os
import statistics
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import markdown, run_benchmark, train, train_rsl_rl

ITERATIONS = 8
TASK, CONFIG = "Mjlab-Velocity-Flat-Unitree-Go1", "mjlab_go1_flat"
SIZES = {"4096": 4096, "16384": 16384}
FIRST = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # what trainings call cuda:0
QUERY = ["nvidia-smi", f"--id={FIRST}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]


def measure(sizes: dict[str, int], quick: bool, overrides: list[str]) -> dict[str, Any]:
    """Train with each number of envs."""
    rows = []
    for num_envs in sizes.values():
        with TemporaryDirectory() as logs:
            ours = _peak_mib(partial(_train_ours, num_envs, logs, overrides))
            theirs = _peak_mib(partial(_train_rsl_rl, num_envs, logs))
        rows.append(
            {"num_envs": num_envs, "MiB": ours, "rsl_rl_MiB": theirs, "more_MiB": ours - theirs}
        )
        print(rows[-1], flush=True)
    return {"overrides": overrides, "iterations": ITERATIONS, "rows": rows}


def _train_ours(num_envs: int, logs: str, overrides: list[str]) -> None:
    where = ["rollout.device=cuda:0", "rollout.num_workers=0", "experiment.device=cuda:0"]
    size = [f"rollout.envs_per_worker={num_envs}", f"experiment.max_iterations={ITERATIONS}"]
    train([f"env={CONFIG}", *where, *size, *overrides], logs)


def _train_rsl_rl(num_envs: int, logs: str) -> None:
    train_rsl_rl(TASK, num_envs, ITERATIONS, 1, f"{logs}/rsl_rl", "cuda:0")


def _peak_mib(training: Callable[[], object]) -> int:
    """Return the most that was in use while `training` ran, over what was before [MiB]."""
    before = statistics.median(_used_mib() for _ in range(3))
    seen, ended = [before], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            seen.append(_used_mib())

    with ThreadPoolExecutor(1) as pool:
        watcher = pool.submit(watch)
        try:
            training()
        finally:
            ended.set()
        watcher.result(timeout=60.0)  # raises what nvidia-smi has failed with
    return round(max(seen) - before)


def _used_mib() -> float:
    return float(subprocess.run(QUERY, capture_output=True, text=True, check=True).stdout)


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("envs", "ours, MiB", "rsl_rl, MiB", "more, MiB")
    keys = ("num_envs", "MiB", "rsl_rl_MiB", "more_MiB")
    return markdown(header, [[row[key] for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    run_benchmark(__doc__ or "", SIZES, measure, render, takes_overrides=True)
