"""Samples to a threshold with a policy lag of exactly 1 against synchronous PPO.

python -m benchmarks.sample_efficiency --json benchmarks/results/sample_efficiency.json

Ten seeds, each trained with L = 0 and with L = 1; `rollout.deterministic=true` makes the lag
exactly L and the sample counts independent of timing, so that runs may share the machine.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.common import markdown, run_benchmark, train

# None that a setting was chosen with: Pendulum's learning rate was, with seeds 1 to 10.
SEEDS = tuple(range(11, 21))
LAGS = (0, 1)
PARALLEL_RUNS = len(os.sched_getaffinity(0))
RESAMPLES = 10_000
CONFIDENCE = 0.95
WINDOW = 100  # finished episodes that the mean return is over


@dataclass(frozen=True)
class Task:
    """What is trained, and when it counts as learned.

    Attributes:
        overrides: Hydra overrides; the rest is the env's defaults.
        threshold: Mean return of the last 100 finished episodes.
        num_envs: Envs in all.
        episode_length: [steps]
    """

    overrides: tuple[str, ...]
    threshold: float
    num_envs: int
    episode_length: int

    @property
    def delay(self) -> int:
        """Samples by which the measure trails the policy, the same for every lag.

        A mean over a window shows its middle, and an episode its middle.
        """
        return self.episode_length * (WINDOW + self.num_envs) // 2


TASKS = {
    "Pendulum-v1": Task(("env=gym_pendulum",), -200.0, num_envs=32, episode_length=200),
    # In one process (W = 0), as that many runs at a time are faster than workers in each. A policy
    # that has learned nothing gets 9 and one that has learned all 49: nine tenths of the way.
    "Mjlab-Cartpole-Balance": Task(
        (
            *("env=mjlab_cartpole_balance", "rollout.num_workers=0", "rollout.envs_per_worker=64"),
            "experiment.max_iterations=300",
        ),
        45.0,
        num_envs=64,
        episode_length=1000,
    ),
}


def measure(tasks: dict[str, Task], quick: bool) -> dict[str, Any]:
    """Train every task, seed and lag; as many at a time as there are cores."""
    seeds = SEEDS[:2] if quick else SEEDS
    short = ("experiment.max_iterations=5",) if quick else ()
    results = {}
    for name, task in tasks.items():
        with TemporaryDirectory() as logs, ThreadPoolExecutor(PARALLEL_RUNS) as pool:
            pending = [
                pool.submit(_measure_run, task, seed, lag, short, logs)
                for seed in seeds
                for lag in LAGS
            ]
            runs = [future.result() for future in pending]
        results[name] = {
            "overrides": task.overrides,
            "threshold": task.threshold,
            "delay": task.delay,
            "runs": runs,
            **_compare(runs, task.delay),
        }
        print(name, {k: v for k, v in results[name].items() if k != "runs"}, flush=True)
    return results


def _measure_run(
    task: Task, seed: int, lag: int, short: tuple[str, ...], logs: str
) -> dict[str, Any]:
    overrides = [
        *task.overrides,
        *short,
        "rollout.deterministic=true",
        f"rollout.max_policy_lag={lag}",
        f"experiment.seed={seed}",
    ]
    training = train(overrides, f"{logs}/{seed}-{lag}")
    reached = training.first_at_least(task.threshold)
    row = {
        "seed": seed,
        "lag": lag,
        "reached": reached is not None,
        # A run that never gets there counts as all it was given.
        "samples": reached.env_steps if reached else training.summary["env_steps"],
        "final_return": training.summary["mean_return"],
        "policy_lag_mean": training.summary["policy_lag_mean"],
    }
    print(row, flush=True)
    return row


def _compare(runs: list[dict[str, Any]], delay: int) -> dict[str, Any]:
    """Return medians, their ratio and its interval, as measured and less the measure's delay."""
    samples = {lag: np.array([r["samples"] for r in runs if r["lag"] == lag]) for lag in LAGS}
    return {
        "median_samples": {lag: float(np.median(samples[lag])) for lag in LAGS},
        "ratio": ratio_of_medians(samples[0], samples[1]),
        "ratio_less_delay": ratio_of_medians(samples[0] - delay, samples[1] - delay),
    }


def ratio_of_medians(base: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return median(other) / median(base), and its bootstrap interval.

    Pairs are resampled whole: both runs of a seed start from the same weights (percentile method,
    Efron 1979).
    """
    rng = np.random.default_rng(0)
    rows = rng.integers(len(base), size=(RESAMPLES, len(base)))
    ratios = np.median(other[rows], axis=1) / np.median(base[rows], axis=1)
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return float(np.median(other) / np.median(base)), float(low), float(high)


def render(results: dict[str, Any]) -> str:
    """Return one table over the tasks and one of all runs."""
    summary = []
    for name, task in results.items():
        medians = task["median_samples"]
        shown = [
            f"{ratio:.3f} [{low:.3f}, {high:.3f}]"
            for ratio, low, high in (task["ratio"], task["ratio_less_delay"])
        ]
        summary.append(
            (name, f"{task['threshold']:g}", f"{medians[0]:,.0f}", f"{medians[1]:,.0f}", *shown)
        )
    header = (
        *("task", "threshold", "L = 0: median samples", "L = 1: median samples"),
        *("ratio [95%]", "ratio less the measure's delay [95%]"),
    )
    rows = []
    for name, task in results.items():
        for lag in LAGS:
            runs = [run for run in task["runs"] if run["lag"] == lag]
            shown = [f"{r['samples']:,}" + ("" if r["reached"] else " (never)") for r in runs]
            rows.append((name, lag, *shown))
    seeds = [f"seed {run['seed']}" for run in next(iter(results.values()))["runs"]]
    by_run = markdown(("task", "L", *dict.fromkeys(seeds)), rows)
    return f"{markdown(header, summary)}\n\n{by_run}"


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
