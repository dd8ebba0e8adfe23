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
from dataclasses import dataclass
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
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        subprocess.Popen(run, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as ours,
        subprocess.Popen(
            bare, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as theirs,
    ):
        try:
            _wait_for(ours, "iteration 30/")
            _wait_for(theirs, "ready")
            time.sleep(seconds)
            workers = [
                psutil.Process(child.pid)
                for child in psutil.Process(ours.pid).children()
                if "spawn_main" in " ".join(child.cmdline())
            ]
            worker_mib = max(_pss_mib(worker) for worker in workers)
            bare_mib = _pss_mib(psutil.Process(theirs.pid))
        finally:
            ours.terminate()
            theirs.kill()
    return {
        "worker_MiB": round(worker_mib),
        "bare_MiB": round(bare_mib),
        "more_MiB": round(worker_mib - bare_mib),
    }


def _wait_for(process: "subprocess.Popen[str]", text: str) -> None:
    """Read a process's output until it says something.

    Raises:
        RuntimeError: It ends, or takes too long.
    """
    assert process.stdout is not None
    deadline = time.monotonic() + TIMEOUT_S
    for line in process.stdout:
        if text in line:
            return
        if time.monotonic() > deadline:
            break
    raise RuntimeError(f"{process.args}: has not said {text!r}")


def _pss_mib(process: psutil.Process) -> float:
    return process.memory_full_info().pss / 2**20


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("task", "torch and the env, MiB", "a worker, MiB", "more, MiB")
    keys = ("task", "bare_MiB", "worker_MiB", "more_MiB")
    return markdown(header, [[row[key] for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
