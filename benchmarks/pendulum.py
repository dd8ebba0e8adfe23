"""Pendulum and CartPole with two workers and L = 1, the defaults of their config files.

python -m benchmarks.pendulum --json benchmarks/results/pendulum.json

What `scripts/run_gym_local.sh` trains, with five seeds. With `--baseline REV` each is trained by
that commit too, right before. *Start* is from the command to the end of the first iteration.
"""

import statistics
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.baseline import Build, builds
from benchmarks.common import markdown, run_benchmark, train

SEEDS = (1, 2, 3, 4, 5)
EPISODES = 32
# What the training curve is asked to reach, by config name.
TASKS = {"gym_pendulum": -200.0, "gym_cartpole": 490.0}


def measure(tasks: dict[str, float], quick: bool, baseline: str | None) -> dict[str, Any]:
    """Train and evaluate every seed, by each build."""
    seeds, short = (SEEDS[:1], ["experiment.max_iterations=20"]) if quick else (SEEDS, [])
    rows = []
    with builds(baseline) as both:
        for env, threshold in tasks.items():
            for seed in seeds:
                for build in both:
                    rows.append(_measure_run(build, env, threshold, seed, short))
                    print(rows[-1], flush=True)
    return {"episodes": EPISODES, "rows": rows}


def _measure_run(
    build: Build, env: str, threshold: float, seed: int, short: list[str]
) -> dict[str, Any]:
    with TemporaryDirectory() as logs:
        overrides = [f"env={env}", f"experiment.seed={seed}", *short]
        training = train(overrides, logs, run=build.run_module)
        reached = training.first_at_least(threshold)
        return {
            "build": build.name,
            "env": env,
            "seed": seed,
            "start_s": round(training.first_s, 2),
            "steps_per_s": round(training.curve[-1].env_steps / training.curve[-1].seconds),
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
    """Return the table, and ratios of the builds' medians where there are two."""
    header = (
        *("build", "env", "seed", "start [s]", "steps/s", "training [s]", "env steps"),
        *("curve reaches", "after [s]"),
        *("after [steps]", f"evaluation ({results['episodes']} episodes)"),
    )
    rows = [
        (
            *(row["build"], row["env"], row["seed"], row["start_s"], f"{row['steps_per_s']:,}"),
            *(row["training_s"], f"{row['env_steps']:,}"),
            *(f"{row['threshold']:g}", row["threshold_s"] or "never"),
            f"{row['threshold_steps']:,}" if row["threshold_steps"] else "never",
            f"{row['evaluation_return']:.1f}",
        )
        for row in results["rows"]
    ]
    return "\n\n".join([markdown(header, rows), *_ratios(results["rows"])])


def _ratios(rows: list[dict[str, Any]]) -> list[str]:
    """Return the new build's medians over the old one's."""
    names = list(dict.fromkeys(row["build"] for row in rows))
    if len(names) == 1:
        return []
    lines = []
    for env in dict.fromkeys(row["env"] for row in rows):
        of_env = [row for row in rows if row["env"] == env]
        ratios = []
        for key in ("start_s", "steps_per_s", "threshold_s", "threshold_steps"):
            # A seed that never reached it is beyond all others.
            old, new = (
                statistics.median(
                    float("inf") if row[key] is None else row[key]
                    for row in of_env
                    if row["build"] == name
                )
                for name in names
            )
            ratios.append(f"{new / old:.2f}" if old < float("inf") else "-")
        lines.append((env, *ratios))
    header = ("new over old, medians", "start", "steps/s", "seconds to it", "samples to it")
    return [markdown(header, lines)]


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render, takes_baseline=True)
