"""Seconds to rsl_rl's reward at iteration 300 on mjlab's Go1 flat, one GPU for each training.

python -m benchmarks.go1_reward --json benchmarks/results/h200/go1_reward.json ppo.precision=tf32

The same task, networks, rewards, envs and steps; `ppo.*` is ours, in the file below and in what
follows the options. Each training is a process of its own, and there are as many at a time as GPUs:
with two of them the trainers run side by side and have the same machine. Both curves are the
trainers' own: the mean return of the last 100 finished episodes. Seconds are those of the
iterations, without either's start.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common import (
    Point,
    markdown,
    rsl_rl_iteration_times,
    run_benchmark,
    train,
    train_rsl_rl,
)

NUM_ENVS, STEPS, ITERATIONS, SEEDS = 4096, 24, 300, {"1": 1, "2": 2, "3": 3}
OURS = (
    *("env=mjlab_go1_flat", f"rollout.envs_per_worker={NUM_ENVS}", "rollout.num_workers=0"),
    *("rollout.device=cuda:0", "experiment.device=cuda:0"),
    *("ppo.desired_kl=0.015", "ppo.num_mini_batches=8", "ppo.entropy_coef=0.003"),
)


def measure(seeds: dict[str, int], quick: bool, overrides: list[str]) -> dict[str, Any]:
    """Train both with every seed; rsl_rl's end says what is to be reached."""
    iterations = 5 if quick else ITERATIONS
    gpus: SimpleQueue[int] = SimpleQueue()
    for index in range(torch.cuda.device_count()):
        gpus.put(index)

    def on_a_gpu(training: Callable[..., list[Point]], *arguments: Any) -> list[Point]:
        gpu = gpus.get(timeout=10.0)  # there are as many threads as GPUs
        try:
            alone = {"CUDA_VISIBLE_DEVICES": str(gpu)}
            return training(alone, iterations, logs, *arguments)
        finally:
            gpus.put(gpu)

    rows = []
    with TemporaryDirectory() as logs, ThreadPoolExecutor(torch.cuda.device_count()) as pool:
        curves = [
            (
                seed,
                pool.submit(on_a_gpu, _train_rsl_rl, seed),
                pool.submit(on_a_gpu, _train_ours, seed, overrides),
            )
            for seed in seeds.values()
        ]
        for seed, theirs, ours in curves:
            target = theirs.result()[-1].mean_return
            assert target is not None
            rows.append(_row("rsl_rl", seed, target, theirs.result()))
            rows.append(_row("isaac_hydra_ext", seed, target, ours.result()))
            for row in rows[-2:]:
                print({k: v for k, v in row.items() if k != "curve"}, flush=True)
    return {"ours": [*OURS, *overrides], "gpus": torch.cuda.device_count(), "rows": rows}


def _train_ours(
    environment: dict[str, str], iterations: int, logs: str, seed: int, overrides: list[str]
) -> list[Point]:
    length = [f"experiment.seed={seed}", f"experiment.max_iterations={iterations}"]
    return train([*OURS, *length, *overrides], logs, environment).curve


def _train_rsl_rl(
    environment: dict[str, str], iterations: int, logs: str, seed: int
) -> list[Point]:
    log_dir = f"{logs}/rsl_rl_{seed}"
    task = "Mjlab-Velocity-Flat-Unitree-Go1"
    train_rsl_rl(task, NUM_ENVS, iterations, seed, log_dir, "cuda:0", environment=environment)
    return _rsl_rl_curve(Path(log_dir))


def _rsl_rl_curve(directory: Path) -> list[Point]:
    """Read the curve from its events: their steps count from 0, their times are of iterations."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    returns = {e.step: e.value for e in events.Scalars("Train/mean_reward")}
    seconds, curve = 0.0, []
    for step, taken in enumerate(rsl_rl_iteration_times(directory)):
        seconds += taken
        curve.append(Point((step + 1) * NUM_ENVS * STEPS, seconds, returns.get(step)))
    return curve


def _row(trainer: str, seed: int, target: float, curve: list[Point]) -> dict[str, Any]:
    known = [point for point in curve if point.mean_return is not None]
    reached = next((point for point in known if (point.mean_return or 0.0) >= target), None)
    last = curve[-1]
    return {
        "trainer": trainer,
        "seed": seed,
        "target": round(target, 2),
        "seconds": reached and round(reached.seconds, 1),
        "samples": reached and reached.env_steps,
        "last_return": last.mean_return,
        "steps_per_s": round(last.env_steps / last.seconds),
        "curve": [(round(point.seconds, 2), point.mean_return) for point in curve],
    }


def render(results: dict[str, Any]) -> str:
    """Return the table; seconds of ours that were not enough are a dash."""
    header = ("trainer", "seed", "target", "seconds to it", "samples to it", "last", "steps/s")
    keys = ("trainer", "seed", "target", "seconds", "samples", "last_return", "steps_per_s")
    return markdown(header, [[_shown(row[key]) for key in keys] for row in results["rows"]])


def _shown(value: Any) -> Any:
    return "-" if value is None else f"{value:,.1f}" if isinstance(value, float) else value


if __name__ == "__main__":
    run_benchmark(__doc__ or "", SEEDS, measure, render, takes_overrides=True)
