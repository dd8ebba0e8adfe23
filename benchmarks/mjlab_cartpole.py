"""mjlab's Cartpole-Balance: two workers and L = 1 against mjlab's own rsl_rl trainer.

python -m benchmarks.mjlab_cartpole --json benchmarks/results/mjlab_cartpole.json

Same task, same number of envs and samples, each trainer in a process of its own. rsl_rl has the
task's own settings, and so has ours, but for the discount: `env=mjlab_cartpole_balance` sets that.
"""

from itertools import product
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import markdown, run_benchmark, train, train_rsl_rl

# rsl_rl's name of the task, by ours.
TASKS = {"mjlab_cartpole_balance": "Mjlab-Cartpole-Balance"}
SEEDS = (1, 2, 3)
# rsl_rl's curve is flat from iteration 130 on.
ITERATIONS = 200


def measure(tasks: dict[str, str], quick: bool) -> dict[str, Any]:
    """Train every seed with both trainers, one after the other."""
    seeds, iterations = (SEEDS[:1], 5) if quick else (SEEDS, ITERATIONS)
    rows = []
    for (env, task), seed in product(tasks.items(), seeds):
        with TemporaryDirectory() as logs:
            ours, num_envs = _train_ours(env, seed, iterations, logs)
            rows.append(ours)
            rows.append(_train_rsl_rl(task, seed, iterations, num_envs, logs))
        for row in rows[-2:]:
            print({k: v for k, v in row.items() if k != "curve"}, flush=True)
    return {"iterations": iterations, "rows": rows}


def _train_ours(env: str, seed: int, iterations: int, logs: str) -> tuple[dict[str, Any], int]:
    training = train(
        [
            f"env={env}",
            "rollout.num_workers=2",
            f"experiment.seed={seed}",
            f"experiment.max_iterations={iterations}",
        ],
        logs,
    )
    row = {
        "trainer": "isaac_hydra_ext, W = 2, L = 1",
        "seed": seed,
        "env_steps": training.summary["env_steps"],
        "training_s": round(training.summary["wall_s"], 1),
        "training_return": training.summary["mean_return"],
        "evaluation_return": training.evaluate(),
        "curve": [p.mean_return for p in training.curve],
    }
    return row, training.config["rollout"]["envs_per_worker"] * 2


def _train_rsl_rl(
    task: str, seed: int, iterations: int, num_envs: int, logs: str
) -> dict[str, Any]:
    result = train_rsl_rl(task, num_envs, iterations, seed, f"{logs}/rsl_rl_{seed}", episodes=32)
    return {
        "trainer": "rsl_rl",
        "seed": seed,
        "env_steps": result["env_steps"],
        "training_s": round(result["training_s"], 1),
        "training_return": result["curve"][-1],
        "evaluation_return": result["evaluation_return"],
        "curve": result["curve"],
    }


def render(results: dict[str, Any]) -> str:
    """Return the table, and the ratio of the two trainers' mean returns."""
    header = ("trainer", "seed", "env steps", "training [s]", "last 100 episodes", "evaluation")
    rows = [
        (
            *(row["trainer"], row["seed"], f"{row['env_steps']:,}", row["training_s"]),
            *(_shown(row["training_return"]), _shown(row["evaluation_return"])),
        )
        for row in results["rows"]
    ]
    lines = [markdown(header, rows), ""]
    for key, name in (
        ("training_return", "last 100 episodes"),
        ("evaluation_return", "evaluation"),
    ):
        ours = [row[key] for row in results["rows"] if row["trainer"] != "rsl_rl"]
        theirs = [row[key] for row in results["rows"] if row["trainer"] == "rsl_rl"]
        if None not in ours + theirs:
            ratio = sum(ours) / sum(theirs)
            lines.append(f"Ours over rsl_rl's, mean of the seeds, {name}: {ratio:.3f}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
