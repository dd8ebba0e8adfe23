"""What a worker takes of the machine's memory over a process with torch and the same env.

python -m benchmarks.memory --json benchmarks/results/memory.json

A run with two workers and, at the same time, a process that imports torch, makes the env as its own
documentation does and steps it. PSS counts a page that n processes share as 1/n of it, so all are
measured while all are there.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.common import REPOSITORY, markdown, run_benchmark

WORKERS, UNENDING = 2, 10**6


@dataclass(frozen=True)
class Task:
    """One env, as our configuration has it and as Python code that makes it without us."""

    env: str
    num_envs: int
    bare: str


GYM = """
import gymnasium, torch
env = gymnasium.make_vec("Pendulum-v1", {num_envs}, vectorization_mode="sync")
env.reset()
for _ in range(300):
    env.step(env.action_space.sample())
"""
MJLAB = """
import torch, mjlab.tasks
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg
cfg = load_env_cfg("Mjlab-Cartpole-Balance")
cfg.scene.num_envs = {num_envs}
env = ManagerBasedRlEnv(cfg, device="cpu")
env.reset()
for _ in range(300):
    env.step(torch.zeros({num_envs}, 1))
"""
# The same small network as a policy, and then it waits.
REST = """
torch.set_num_threads(1)
torch.nn.Linear(4, 64)(torch.zeros(16, 4)).sum()
print("ready", flush=True)
input()
"""
TASKS = {
    "Pendulum": Task("gym_pendulum", 16, GYM),
    "mjlab Cartpole-Balance": Task("mjlab_cartpole_balance", 64, MJLAB),
}
TIMEOUT_S = 300.0


def measure(tasks: dict[str, Task], quick: bool) -> dict[str, Any]:
    """Measure one task after the other."""
    rows = []
    for name, task in tasks.items():
        with TemporaryDirectory() as logs:
            rows.append({"task": name} | _measure(task, logs, 2.0 if quick else 20.0))
        print(rows[-1], flush=True)
    return {"rows": rows}


def _measure(task: Task, logs: str, seconds: float) -> dict[str, Any]:
    run = [sys.executable, "-m", "isaac_hydra_ext.appo_runner", f"env={task.env}"]
    run += [f"rollout.num_workers={WORKERS}", f"rollout.envs_per_worker={task.num_envs}"]
    run += [f"experiment.max_iterations={UNENDING}", f"experiment.output_dir={logs}"]
    run += ["logging.console=plain", "experiment.device=cpu"]
    bare = [sys.executable, "-c", task.bare.format(num_envs=task.num_envs) + REST]
    with (
        _running(run, f"{logs}/run", "iteration 30/") as ours,
        _running(bare, f"{logs}/bare", "ready", {"OMP_NUM_THREADS": "1"}) as theirs,
    ):
        time.sleep(seconds)
        workers = [
            psutil.Process(child.pid)
            for child in psutil.Process(ours.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        worker_mib = max(_pss_mib(worker) for worker in workers)
        bare_mib = _pss_mib(psutil.Process(theirs.pid))
    return {
        "worker_MiB": round(worker_mib),
        "bare_MiB": round(bare_mib),
        "more_MiB": round(worker_mib - bare_mib),
    }


@contextmanager
def _running(
    command: list[str], output: str, until: str, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Start a command, wait until it says something, and end it afterwards.

    Raises:
        RuntimeError: It ends before, or takes too long.
    """
    with open(output, "w") as file:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=file,
            text=True,
        )
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while until not in Path(output).read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command}: has not said {until!r}")
                time.sleep(0.2)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _pss_mib(process: psutil.Process) -> float:
    return process.memory_full_info().pss / 2**20


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("task", "torch and the env, MiB", "a worker, MiB", "more, MiB")
    keys = ("task", "bare_MiB", "worker_MiB", "more_MiB")
    return markdown(header, [[row[key] for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
