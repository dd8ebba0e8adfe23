"""Isaac Lab's Cartpole-Direct on the CPU: ours against rsl_rl in the same run.

python -m benchmarks.isaac_cartpole --json benchmarks/results/isaac_cartpole.json

Needs Isaac Lab 3.0.0 and its rsl_rl, in the Python of scripts/run_isaac_lab.sh. 256 envs, 150
iterations of 16 steps with the task's own settings; ours with W = 2 and a lag of one version, and
of none, rsl_rl in one process. About ten minutes on two free cores. Seconds are those of the
iterations, without either's start, logging and saving.
"""

import json
import subprocess
import sys
import tempfile
from importlib import metadata
from typing import Any

import numpy as np

from benchmarks.common import REPOSITORY, markdown, run_benchmark, run_module, train

NUM_ENVS, SEEDS, ITERATIONS = 256, (1, 2, 3), 150
CHILD = "benchmarks.isaac_lab_child"
OURS = {lag: f"isaac_hydra_ext, W = 2, L = {lag}" for lag in (1, 0)}
RSL_RL = "rsl_rl, one process"


def measure(tasks: dict[str, None], quick: bool) -> dict[str, Any]:
    """Train with every seed, the two trainers in turn, so that a busy hour meets both."""
    del tasks
    iterations, seeds = (10, (1,)) if quick else (ITERATIONS, SEEDS)
    rows = []
    with tempfile.TemporaryDirectory() as logs:
        for seed in seeds:
            rows.append(_train_rsl_rl(seed, iterations))
            rows += [_train_ours(seed, iterations, logs, lag) for lag in OURS]
            for row in rows[-3:]:
                print(row, flush=True)
    return {"rows": rows, "simulation_fps": _simulate(), "sources": _sources()}


def _train_ours(seed: int, iterations: int, logs: str, lag: int) -> dict[str, Any]:
    training = train(
        [
            "env=isaac_cartpole", "env.physics=newton_mjwarp", "rollout.device=cpu",
            "rollout.num_workers=2", f"rollout.envs_per_worker={NUM_ENVS // 2}",
            f"experiment.seed={seed}", f"experiment.max_iterations={iterations}",
            f"rollout.max_policy_lag={lag}",
        ],
        logs,
    )  # fmt: skip
    return _row(OURS[lag], seed, training.summary | {"training_s": training.summary["wall_s"]})


def _train_rsl_rl(seed: int, iterations: int) -> dict[str, Any]:
    arguments = ["--mode", "rsl_rl", "--seed", str(seed), "--num-envs", str(NUM_ENVS)]
    arguments += ["--iterations", str(iterations)]
    result = json.loads(run_module(CHILD, arguments).splitlines()[-1])
    return _row(RSL_RL, seed, result)


def _row(trainer: str, seed: int, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "trainer": trainer,
        "seed": seed,
        "env_steps": result["env_steps"],
        "training_s": round(result["training_s"], 1),
        "fps": round(result["env_steps"] / result["training_s"]),
        "mean_return": result["mean_return"],
        "mean_length": result.get("mean_length", result.get("mean_episode_length")),
    }


def _sources() -> dict[str, str]:
    """Return which Isaac Lab this was, and on what it simulated."""
    names = ("isaaclab", "rsl-rl-lib", "newton", "warp-lang", "mujoco-warp", "torch")
    return {name: metadata.version(name) for name in names}


def _simulate() -> float:
    """Return the steps per second of two processes that do nothing but simulate."""
    line = [sys.executable, "-m", CHILD, "--mode", "simulate", "--num-envs", str(NUM_ENVS // 2)]
    children = [
        subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    outputs = [child.communicate(timeout=600)[0] for child in children]
    return sum(json.loads(output.splitlines()[-1])["fps"] for output in outputs)


def render(results: dict[str, Any]) -> str:
    """Return the table and the ratios."""
    header = ("trainer", "seed", "env steps", "training [s]", "steps/s", "return", "length")
    rows = [
        (
            *(row["trainer"], row["seed"], f"{row['env_steps']:,}", row["training_s"]),
            *(f"{row['fps']:,}", f"{row['mean_return']:.2f}", f"{row['mean_length']:.1f}"),
        )
        for row in results["rows"]
    ]
    simulation = results["simulation_fps"]
    lines = [f"Two processes that only simulate: {simulation:,.0f} steps/s."]
    for name in OURS.values():
        returns, seconds = (
            _mean(results, name, key) / _mean(results, RSL_RL, key)
            for key in ("mean_return", "training_s")
        )
        lines.append(
            f"{name}: over rsl_rl's, mean of the seeds, return {returns:.4f}, seconds "
            f"{seconds:.2f}; {_mean(results, name, 'fps') / simulation:.2f} of the speed of "
            "simulation alone."
        )
    lines.append(f"Sources: {results['sources']}.")
    return "\n\n".join([markdown(header, rows), *lines])


def _mean(results: dict[str, Any], trainer: str, key: str) -> float:
    return float(np.mean([row[key] for row in results["rows"] if row["trainer"] == trainer]))


if __name__ == "__main__":
    run_benchmark(__doc__ or "", {"cartpole": None}, measure, render)
