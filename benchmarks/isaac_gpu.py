"""Isaac Lab 3.0.0 on one GPU: steady steps/s of ours, of rsl_rl, and of the simulation alone.

python -m benchmarks.isaac_gpu --json benchmarks/results/h200/isaac_gpu.json

Needs Isaac Lab 3.0.0 and its rsl_rl, in the Python of scripts/run_isaac_lab.sh, and without a
network `ISAACSIM_ASSET_ROOT` (scripts/make_isaac_assets.py). All with the task's own rsl_rl
settings, in processes of their own, one after the other; ours in one process with W = 0, L = 1. The
first iterations, which compile, are not counted.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common import markdown, run_benchmark, run_module, train
from benchmarks.isaac_cartpole import CHILD
from benchmarks.isaac_lab_child import WARM_ITERATIONS

CAMERA, DIRECT = "Isaac-Cartpole-Camera-Direct", "Isaac-Cartpole-Direct"
PRESETS = {"physics": "newton_mjwarp"}
DRAWN = {**PRESETS, "renderer": "newton_renderer"}
# Task, presets, envs, iterations.
TASKS: dict[str, tuple[str, dict[str, str], int, int]] = {
    "camera, 512": (CAMERA, DRAWN, 512, 15),
    "camera, 2,048": (CAMERA, DRAWN, 2048, 10),
    "Cartpole, 4,096": (DIRECT, PRESETS, 4096, 150),
    "Cartpole, 16,384": (DIRECT, PRESETS, 16384, 150),
}


def measure(tasks: dict[str, tuple[str, dict[str, str], int, int]], quick: bool) -> dict[str, Any]:
    """Measure each task; `quick` is a few envs on the CPU."""
    device, rows = "cpu" if quick else "cuda:0", []
    for name, (task, presets, num_envs, iterations) in tasks.items():
        if quick:
            num_envs, iterations = 4, WARM_ITERATIONS + 2
        row: dict[str, Any] = {"task": name, "num_envs": num_envs}
        child = ["--task", task, "--num-envs", str(num_envs), "--device", device]
        child += ["--iterations", str(iterations), "--presets"]
        child += [f"{key}={value}" for key, value in presets.items()]
        for mode in ("simulate", "steady"):
            said = run_module(CHILD, ["--mode", mode, *child])
            row[mode] = round(json.loads(said.splitlines()[-1])["fps"])
        row["ours"] = _ours(task, presets, num_envs, iterations, device)
        print(row, flush=True)
        rows.append(row)
    return {"rows": rows}


def _ours(
    task: str, presets: dict[str, str], num_envs: int, iterations: int, device: str
) -> dict[str, int]:
    """Return our rates by `ppo.precision`."""
    rates = {}
    for precision in ("fp32",) if device == "cpu" else ("tf32", "bf16"):
        with tempfile.TemporaryDirectory() as logs:
            training = train(
                [
                    "env=isaac_cartpole", f"env.task={task}", "rollout.num_workers=0",
                    *(f"env.{key}={value}" for key, value in presets.items()),
                    f"rollout.envs_per_worker={num_envs}", f"rollout.device={device}",
                    f"experiment.device={device}", f"experiment.max_iterations={iterations}",
                    f"ppo.precision={precision}", "logging.report=false",
                ],
                logs,
            )  # fmt: skip
            rates[precision] = _steady(training.run_dir, training.summary["env_steps"] / iterations)
    return rates


def _steady(run_dir: Path, samples: float) -> int:
    """Return the rate of all iterations but the first few."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    times = [event.value for event in events.Scalars("Perf/iteration_time")][WARM_ITERATIONS:]
    return round(len(times) * samples / sum(times))


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = []
    for row in results["rows"]:
        for precision, rate in row["ours"].items():
            ratios = rate / row["steady"], rate / row["simulate"]
            rates = [f"{number:,}" for number in (row["simulate"], row["steady"], rate)]
            rows.append((row["task"], precision, *rates, *(f"{ratio:.2f}" for ratio in ratios)))
    header = ("task, envs", "precision", "simulation alone", "rsl_rl", "ours")
    return markdown((*header, "over rsl_rl", "over simulation"), rows)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
