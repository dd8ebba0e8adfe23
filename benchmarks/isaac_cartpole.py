"""Isaac Lab's Cartpole-Direct on the CPU: ours against rsl_rl in the same run.

python -m benchmarks.isaac_cartpole --json benchmarks/results/isaac_cartpole.json

Needs Isaac Lab 3.0 beta 2 and rsl-rl-lib 5.0.1 (docs/isaac_lab.md says how). 256 envs in all, 150
iterations of 16 steps with the task's own settings; ours with W = 2 and a lag of one version, and
of none, rsl_rl in one process. About ten minutes on two free cores. Seconds are those of the
iterations, without either's start, logging and saving.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
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
    iterations, seeds = (3, (1,)) if quick else (ITERATIONS, SEEDS)
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
    found = {name: metadata.version(name) for name in ("newton", "warp-lang", "mujoco-warp")}
    spec = importlib.util.find_spec("isaaclab")
    assert spec is not None and spec.origin is not None
    return {"isaaclab": checkout_of(Path(spec.origin).parents[3]), **found}


def checkout_of(root: Path) -> str:
    """Return which sources of Isaac Lab these are: in its betas, VERSION is the release's already.

    Args:
        root: Of the checkout, or of a copy without its git history.
    """
    version = (root / "VERSION").read_text().strip()
    if (root / ".git").exists():
        line = ["git", "-C", str(root), "describe", "--tags", "--always", "--dirty"]
        described = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
        return f"{version} (git {described.stdout.strip()})"
    changes = (root / "source" / "isaaclab" / "docs" / "CHANGELOG.rst").read_text()
    newest = re.search(r"^(\d[\w.]*) \((\d{4}-\d\d-\d\d)\)$", changes, re.M)
    assert newest, f"{root}: no version in isaaclab's changelog"
    return f"{version} (source/isaaclab {newest[1]} of {newest[2]})"


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
