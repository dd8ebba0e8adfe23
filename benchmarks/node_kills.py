"""A Ray node killed every 20 s while a run goes on: are its counts exact, and how soon is it back?

python -m benchmarks.node_kills --json benchmarks/results/node_kills.json

Recovery is the time from a kill to the end of the next iteration that its worker has a part in. The
env's own start-up, the same time after a local worker was killed, is measured beside it.
"""

import signal
import statistics
import threading
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from hydra import compose, initialize_config_module

from benchmarks.common import markdown, run_benchmark
from benchmarks.ray_nodes import ray_nodes
from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.config.placement import available_cores

EVERY_S, SECONDS, LOCAL_SECONDS = 20.0, 300.0, 70.0
TASKS = {"Pendulum": "gym_pendulum"}
B, T, W = 16, 64, 2


def measure(tasks: dict[str, str], quick: bool) -> dict[str, Any]:
    """Kill local workers for a while, then nodes."""
    rows = []
    for name, env in tasks.items():
        local = _train(env, [], _kill_a_worker, EVERY_S + 5 if quick else LOCAL_SECONDS)
        with ray_nodes(3, workers_per_node=1) as nodes:
            far = _train(env, nodes.typed, nodes.replace_oldest, EVERY_S + 5 if quick else SECONDS)
        over = statistics.median(far["recoveries_s"]) - statistics.median(local["recoveries_s"])
        rows.append({"task": name, "local": local, "ray": far, "recovery_over_start_up_s": over})
    said = f"all nodes and the learner share one machine of {available_cores()} cores"
    return {"every_s": EVERY_S, "said": said, "rows": rows}


def _kill_a_worker() -> None:
    children = psutil.Process().children()
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    min(workers, key=lambda worker: worker.create_time()).send_signal(signal.SIGKILL)


def _train(env: str, typed: list[str], kill: Callable[[], None], seconds: float) -> dict[str, Any]:
    """Train for so long, killing; returns the counts and how long each recovery took."""
    ended: list[float] = []  # when each iteration did
    kills: list[float] = []
    over = threading.Event()

    def on_iteration(metrics: object) -> bool:
        ended.append(time.monotonic())
        return ended[-1] - ended[0] < seconds

    def killer() -> None:
        while not over.wait(EVERY_S):
            if ended and time.monotonic() - ended[0] < seconds - EVERY_S / 2:
                kills.append(time.monotonic())
                kill()

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        with TemporaryDirectory() as directory:
            line = [
                f"env={env}", f"experiment.output_dir={directory}", "logging.console=quiet",
                "logging.report=false", f"rollout.num_workers={W}", f"rollout.envs_per_worker={B}",
                f"rollout.steps_per_env={T}", "rollout.max_restarts=100",
                "experiment.max_iterations=1000000", "ppo.update_epochs=1", *typed,
            ]  # fmt: skip
            with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
                cfg = compose("train_appo", overrides=line)
            summary = train(cfg, line, on_iteration=on_iteration)
    finally:
        over.set()
        thread.join(60.0)
    names = ("samples_produced", "samples_consumed", "samples_abandoned")
    produced, consumed, abandoned = (summary[name] for name in names)
    return {
        "status": summary["status"],
        "iterations": summary["iterations"],
        "kills": len(kills),
        "worker_restarts": summary["worker_restarts"],
        "counts_exact": produced == consumed + abandoned
        and consumed == summary["iterations"] * W * B * T,
        "samples_abandoned": abandoned,
        "recoveries_s": [_recovery(at, ended) for at in kills],
    }


def _recovery(kill: float, ended: list[float]) -> float:
    """Return how long after a kill the run's pause had ended: its longest one until the next."""
    near = [t for t in ended if kill - EVERY_S / 2 < t < kill + EVERY_S]
    pauses = [(b - a, b) for a, b in zip(near, near[1:], strict=False) if b > kill]
    return max(pauses, default=(0.0, kill))[1] - kill


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = []
    for row in results["rows"]:
        for kind in ("local", "ray"):
            run = row[kind]
            median = statistics.median(run["recoveries_s"])
            rows.append(
                [row["task"], kind, run["kills"], run["worker_restarts"], run["counts_exact"],
                 f"{median:.1f}", f"{max(run['recoveries_s']):.1f}"]
            )  # fmt: skip
    header = [
        "task",
        "workers",
        "kills",
        "restarts",
        "counts exact",
        "recovery, median [s]",
        "max [s]",
    ]
    return markdown(header, rows)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
