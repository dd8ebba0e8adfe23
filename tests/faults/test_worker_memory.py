"""What a worker costs in memory beside torch and its env."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from live_run import LiveRun

Live = Callable[..., LiveRun]
ALONE = """
import gymnasium, psutil, torch
torch.set_num_threads(1)
envs = gymnasium.make_vec("Pendulum-v1", 4)
envs.reset()
envs.step(envs.action_space.sample())
torch.nn.Linear(3, 64)(torch.zeros(4, 3))
print(psutil.Process().memory_full_info().uss)
"""
LIMIT_MB = 200.0


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accounts")
def test_a_worker_costs_little_more_than_torch_and_its_env(live: Live) -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, check=True)
    run = live("experiment.max_iterations=100000")
    run.wait_for_iteration(5)
    for worker in run.workers():
        # USS: what is the process's own does not depend on who else has mapped torch.
        more = worker.memory_full_info().uss - int(done.stdout)
        assert more < LIMIT_MB * 1e6, f"{more / 1e6:.0f} MB more"
