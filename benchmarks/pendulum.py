"""Pendulum and CartPole with two workers and L = 1, the defaults of their config files.

python -m benchmarks.pendulum --json benchmarks/results/pendulum.json

What `scripts/run_gym_local.sh` trains, with five seeds.
"""

from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import markdown, run_benchmark, train

SEEDS = (1, 2, 3, 4, 5)
EPISODES = 32
# What the training curve is asked to reach, by config name.
TASKS = {"gym_pendulum": -200.0, "gym_cartpole": 490.0}


def measure(tasks: dict[str, float], quick: bool) -> dict[str, Any]:
    """Train and evaluate every seed."""
    seeds, short = (SEEDS[:1], ["experiment.max_iterations=20"]) if quick else (SEEDS, [])
    rows = []
    for env, threshold in tasks.items():
        for seed in seeds:
            rows.append(_measure_run(env, threshold, seed, short))
            print(rows[-1], flush=True)
    return {"episodes": EPISODES, "rows": rows}


def _measure_run(env: str, threshold: float, seed: int, short: list[str]) -> dict[str, Any]:
    with TemporaryDirectory() as logs:
        training = train([f"env={env}", f"experiment.seed={seed}", *short], logs)
        reached = training.first_at_least(threshold)
        return {
            "env": env,
            "seed": seed,
            "training_s": round(training.summary["wall_s"], 1),
            "env_steps": training.summary["env_steps"],
            "threshold": threshold,
            "threshold_s": round(reached.seconds, 1) if reached else None,
            "threshold_steps": reached.env_steps if reached else None,
            "training_return": training.summary["mean_return"],
            "evaluation_return": training.evaluate(EPISODES),
            "policy_lag_mean": training.summary["policy_lag_mean"],
        }


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = (
        *("env", "seed", "training [s]", "env steps", "curve reaches", "after [s]"),
        *("after [steps]", f"evaluation ({results['episodes']} episodes)"),
    )
    rows = [
        (
            *(row["env"], row["seed"], row["training_s"], f"{row['env_steps']:,}"),
            *(f"{row['threshold']:g}", row["threshold_s"] or "never"),
            f"{row['threshold_steps']:,}" if row["threshold_steps"] else "never",
            f"{row['evaluation_return']:.1f}",
        )
        for row in results["rows"]
    ]
    return markdown(header, rows)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
