"""From the command to the end of the first iteration, Isaac Lab's Cartpole: ours and rsl_rl's.

python -m benchmarks.isaac_start --json benchmarks/results/isaac_start.json

Needs Isaac Lab 3.0.0 and its rsl_rl, in the Python of scripts/run_isaac_lab.sh. Theirs is `isaaclab
train`, ours `appo train` in one process and with the workers that it takes unasked, in turns, with
the task's own settings, on the GPU if there is one. Nothing is compiled in what counts: a first
turn, which does not, has filled the caches. About ten minutes on two free cores.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.common import REPOSITORY, markdown, module_environment, run_benchmark

TURNS, TIMEOUT_S = 5, 600.0
THEIRS = "isaaclab train, rsl_rl"
FIRST = {THEIRS: r"Learning iteration 0/", "": r"^iteration 1/"}
SIZES = {"cpu": 256, "cuda:0": 4096}


def lines(device: str) -> dict[str, list[str]]:
    """Return the command lines by name."""
    envs = SIZES[device]
    theirs = ["-m", "isaaclab", "train", "--rl_library", "rsl_rl", "--max_iterations", "2"]
    theirs += ["--task", "Isaac-Cartpole-Direct", "--num_envs", str(envs), "--device", device]
    theirs += [f"agent.device={device}", "physics=newton_mjwarp"]
    ours = ["-m", "isaac_hydra_ext.appo_runner", "env=isaac_cartpole", "env.physics=newton_mjwarp"]
    ours += [f"rollout.device={device}", "experiment.max_iterations=2", "logging.report=false"]
    alone = ["rollout.num_workers=0", f"rollout.envs_per_worker={envs}"]
    commands = {THEIRS: theirs, "appo train, W = 0": [*ours, *alone]}
    if device == "cpu":  # on one GPU W = 0 is what it takes unasked
        commands["appo train, W = auto"] = [*ours, f"rollout.envs_per_worker={envs}"]
    return commands


def measure(tasks: dict[str, None], quick: bool) -> dict[str, Any]:
    """Start each in turn, so that a busy minute meets all."""
    del tasks
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as logs:
        for turn in range(1 + (1 if quick else TURNS)):
            for name, line in lines(device).items():
                pattern = FIRST.get(name, FIRST[""])
                seconds, processor = first_iteration([sys.executable, *line], pattern, logs)
                row = {"command": name, "turn": turn, "seconds": seconds, "processor_s": processor}
                print(row, flush=True)
                rows += [row] if turn else []
    return {"device": device, "num_envs": SIZES[device], "rows": rows}


def first_iteration(command: Sequence[str], pattern: str, folder: str) -> tuple[float, float]:
    """Return seconds from a start until a line matches, and its processes' processor time [s].

    Raises:
        RuntimeError: No line did; the message holds the end of the output.
    """
    began, said = time.monotonic(), ""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=module_environment(REPOSITORY),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if re.search(pattern, line):
                seconds, family = time.monotonic() - began, psutil.Process(process.pid)
                times = [p.cpu_times() for p in (family, *family.children(recursive=True))]
                process.stdout.read()
                process.wait(TIMEOUT_S)
                spent = sum(t.user + t.system for t in times)
                return round(seconds, 2), round(spent, 2)
    raise RuntimeError(f"{' '.join(command)}: no first iteration\n{said[-2000:]}")


def render(results: dict[str, Any]) -> str:
    """Return the table: medians of the turns, and what they are of theirs."""
    names = list(dict.fromkeys(row["command"] for row in results["rows"]))
    table = []
    for name in names:
        cells = []
        for key in ("seconds", "processor_s"):
            own, theirs = (_median(results, which, key) for which in (name, THEIRS))
            cells += [f"{own:.1f}", f"{own / theirs:.2f}"]
        table.append((name, *cells))
    header = ("command", "seconds", "over theirs", "processor seconds", "over theirs")
    return markdown(header, table)


def _median(results: dict[str, Any], name: str, key: str) -> float:
    return float(np.median([row[key] for row in results["rows"] if row["command"] == name]))


if __name__ == "__main__":
    run_benchmark(__doc__ or "", {"cartpole": None}, measure, render)
