"""What the scale model is fed with: real runs, a reduction of two processes, and copies.

`python -m benchmarks.scale_model --record --json FILE` calls `measure`; every training is a process
of its own, and all of them once before any for the second time. `--reduce` is one of the two
processes.
"""

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common import markdown, run_module, train
from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.config.placement import available_cores

RESULTS = Path(__file__).parent / "results"
ROUNDS, STEADY = 1, 5  # the first iterations of a run are not counted
MORE = 4  # times as many envs, for what an env and a sample cost
# Ranks, workers a rank, lag. No worker: each rank simulates in its own process.
ALONE = (1, 0, 0)
TASKS: dict[str, dict[str, Any]] = {
    "Pendulum, CPU": {
        "overrides": ["env=gym_pendulum"],
        "envs": 16,
        "iterations": 40,
        "checks": [(1, 1, 1), (1, 2, 1), (1, 4, 1), (1, 1, 0), (2, 0, 0), (2, 1, 1)],
    },
    "mjlab Cartpole, CPU": {  # whose processes are slow to start
        "overrides": ["env=mjlab_cartpole_balance"],
        "envs": 16,
        "iterations": 18,
        "checks": [(1, 2, 1), (2, 0, 0)],
    },
}
SIZES = [2**n for n in range(12, 25, 2)]  # bytes reduced
TIMES = {
    "iteration": "Perf/iteration_time",
    "collect": "Perf/collection_time",
    "update": "Perf/learning_time",
}


def measure(tasks: dict[str, dict[str, Any]], quick: bool) -> dict[str, Any]:
    """Measure everything; `quick` sees that it works."""
    pair, store = _two_processes(1 if quick else 5), _object_store()
    found = {name: _Runs(name, task, quick) for name, task in tasks.items()}
    for _ in range(1 if quick else ROUNDS):
        for runs in found.values():
            runs.take_all()
    return {
        **pair,
        "memcpy_gb_s": _memcpy_gb_s(),
        "object_store": store,
        "tasks": {name: runs.task_row() for name, runs in found.items()} | _go1_on_an_h200(),
        "checks": [row for runs in found.values() for row in runs.check_rows()],
    }


class _Runs:
    """The trainings of one task: seconds by (ranks, workers, lag, envs) and kind, run by run."""

    def __init__(self, name: str, task: dict[str, Any], quick: bool) -> None:
        self._name, self._task, self._quick = name, task, quick
        self._seconds: dict[tuple[int, int, int, int], list[dict[str, list[float]]]] = {}
        self._about: dict[str, Any] = {}

    def take_all(self) -> None:
        envs = self._task["envs"]
        for case in (
            (*ALONE, envs),
            (*ALONE, MORE * envs),
            *((*c, envs) for c in self._task["checks"]),
        ):
            self._seconds.setdefault(case, []).append(self._take(case))

    def _take(self, case: tuple[int, int, int, int]) -> dict[str, list[float]]:
        ranks, workers, lag, envs = case
        iterations = STEADY + 3 if self._quick else self._task["iterations"]
        overrides = [
            *self._task["overrides"],
            f"rollout.num_workers={workers}",
            f"rollout.max_policy_lag={lag}",
            f"rollout.envs_per_worker={envs}",
            f"experiment.max_iterations={iterations}",
            "experiment.device=cpu",
            "rollout.deterministic=true",  # one thread everywhere; the pacing is the same
            "logging.report=false",
        ]
        if ranks > 1:
            overrides.append(f"experiment.devices=[{','.join(['cpu'] * ranks)}]")
        with TemporaryDirectory() as logs:
            run = train(overrides, logs)
            events = EventAccumulator(str(run.run_dir), size_guidance={"scalars": 0})
            events.Reload()
            steady = slice(STEADY, iterations - lag)
            found = {
                kind: [round(e.value, 5) for e in events.Scalars(tag)[steady]]
                for kind, tag in TIMES.items()
            }
            if case == (*ALONE, self._task["envs"]):
                self._about = _about(run.run_dir, run.config)
        print(
            self._name,
            case,
            {k: round(statistics.median(v), 4) for k, v in found.items()},
            flush=True,
        )
        return found

    def _all(self, case: tuple[int, int, int, int], kind: str) -> list[float]:
        return [value for run in self._seconds[case] for value in run[kind]]

    def task_row(self) -> dict[str, Any]:
        """Return the distributions of one process alone, and what an env and a sample cost."""
        envs = self._task["envs"]
        base, more = (*ALONE, envs), (*ALONE, MORE * envs)
        steps = self._about["steps"]
        collect, update = self._all(base, "collect"), self._rest(base)
        return {
            "envs": envs,
            **self._about,
            "collect_s": collect,
            "update_s": [round(s, 5) for s in update],
            "collect_by_envs": [
                [envs, statistics.mean(collect)],
                [MORE * envs, statistics.mean(self._all(more, "collect"))],
            ],
            "update_by_samples": [
                [envs * steps, statistics.mean(update)],
                [MORE * envs * steps, statistics.mean(self._rest(more))],
            ],
        }

    def _rest(self, case: tuple[int, int, int, int]) -> list[float]:
        """Return an iteration's seconds without its rollout: the update, logging, publishing."""
        iteration, collect = self._all(case, "iteration"), self._all(case, "collect")
        return [a - b for a, b in zip(iteration, collect, strict=True)]

    def check_rows(self) -> list[dict[str, Any]]:
        """Return what the model is to predict; rollouts are means of the workers."""
        rows = []
        for ranks, workers, lag in (ALONE, *self._task["checks"]):
            case = (ranks, workers, lag, self._task["envs"])
            row: dict[str, Any] = {"task": self._name, "ranks": ranks, "workers": workers}
            row |= {"lag": lag}
            rows.append(row | {f"{kind}_s": self._all(case, kind) for kind in TIMES})
        return rows


def _about(run_dir: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return what the model needs to know of a task besides its times."""
    newest = max((run_dir / "checkpoints").glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
    checkpoint = load_checkpoint(newest)
    spec = checkpoint.meta["spec"]
    per_step = sum(
        int(np.prod(obs["shape"])) * np.dtype(obs["dtype"]).itemsize for obs in spec["obs"].values()
    )
    return {
        "steps": config["rollout"]["steps_per_env"],
        "epochs": config["ppo"]["update_epochs"],
        "minibatches": config["ppo"]["num_mini_batches"],
        "parameters": checkpoint.tensors["optimizer.exp_avg"].numel(),
        # Action, log-prob and reward are floats, the two ends bytes.
        "bytes_per_sample": per_step + 4 * spec["action"]["dim"] + 10,
        "local": 15,
    }


def _go1_on_an_h200() -> dict[str, Any]:
    """Return mjlab's Go1 flat, of records of one GPU: each is of a turn, a mean of iterations."""

    def row(file: str, **which: Any) -> dict[str, Any]:
        rows = json.loads((RESULTS / "h200" / file).read_text())["results"]["rows"]
        return next(r for r in rows if all(r[key] == value for key, value in which.items()))

    small, large = row("train_go1_flat_4096.json"), row("train_go1_flat_16384.json")
    updates = [
        row("learner_98304.json", samples=98304, variant="bf16")["ms"],
        row("learner.json", samples=393216, variant="bf16")["ms"],
    ]
    collect, more = (
        [round((a + b) / 1e3, 5) for a, b in zip(r["simulation_ms"], r["acting_ms"], strict=True)]
        for r in (small, large)
    )
    return {
        "Go1 flat, a GPU each": {
            "envs": 4096,
            "steps": 24,
            "epochs": 5,
            "minibatches": 4,
            "parameters": 392_841,
            "bytes_per_sample": 4 * (48 + 72 + 12) + 10,
            "local": 7,
            "collect_s": collect,
            "update_s": [updates[0] / 1e3],
            "collect_by_envs": [[4096, statistics.mean(collect)], [16384, statistics.mean(more)]],
            "update_by_samples": [[98304, updates[0] / 1e3], [393216, updates[1] / 1e3]],
        }
    }


def _memcpy_gb_s() -> float:
    source, target = np.ones(2**26, np.uint8), np.zeros(2**26, np.uint8)
    return round(source.nbytes / _median_s(lambda: np.copyto(target, source), 9) / 1e9, 2)


def _object_store() -> dict[str, float]:
    """Time a rollout of 16 MiB and one of 4 KiB through Ray's object store of one machine."""
    import ray

    slot = np.zeros(2**24, np.uint8)
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        large, small = np.ones(2**24, np.uint8), np.ones(2**12, np.uint8)
        stored = ray.put(large)
        return {
            "put_gb_s": round(large.nbytes / _median_s(lambda: ray.put(large), 9) / 1e9, 2),
            "copy_out_gb_s": round(
                slot.nbytes / _median_s(lambda: np.copyto(slot, ray.get(stored)), 9) / 1e9, 2
            ),
            "latency_s": round(_median_s(lambda: ray.get(ray.put(small)), 51), 6),
        }
    finally:
        ray.shutdown()


def _median_s(function: Any, times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _two_processes(rounds: int) -> dict[str, Any]:
    """Return what two processes reach here: gloo's all-reduce, and cores that are both busy."""
    with TemporaryDirectory() as there, ThreadPoolExecutor(2) as threads:
        arguments = [["--reduce", f"{there}/meeting", str(r), str(rounds)] for r in range(2)]
        outputs = threads.map(lambda a: run_module("benchmarks.scale_record", a), arguments)
        found = json.loads(next(iter(outputs)).splitlines()[-1])
    sizes, seconds = np.array(found["allreduce"]).T
    per_byte, latency = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    # A ring of two: 2 (R - 1) messages, and 2 (R - 1) / R of the bytes, each way.
    gloo = {"latency_s": max(0.0, float(latency)) / 2, "gb_s": 1e-9 / float(per_byte)}
    cores = available_cores()
    return {
        "cores": {"there": cores, "worth": round(cores * found["worth"], 3)},
        "gloo": {**gloo, "points": found["allreduce"]},
    }


def _reduce(meeting: str, rank: int, rounds: int) -> dict[str, Any]:
    """Be one of the two processes."""
    torch.set_num_threads(1)
    group = torch.distributed
    group.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    allreduce = []
    for size in SIZES:
        x = torch.zeros(size // 4)
        group.all_reduce(x)
        allreduce.append([size, round(_median_s(lambda x=x: group.all_reduce(x), 10 * rounds), 7)])
    worth = []
    for _ in range(rounds):
        alone = _median_s(_busy, 3) if rank == 0 else 0.0
        group.barrier()
        together = _median_s(_busy, 3)
        group.barrier()
        worth.append(alone / together)
    group.destroy_process_group()
    return {"allreduce": allreduce, "worth": statistics.median(worth)}


def _busy() -> None:
    """Compute as a worker does: calls on small tensors."""
    x = torch.ones(16, 64)
    for _ in range(5000):
        x = torch.tanh(x @ x.mT @ x)


def render(results: dict[str, Any]) -> str:
    """Return what was measured."""
    keys = ("task", "ranks", "workers", "lag")
    rows = [
        (*(row[key] for key in keys), f"{1e3 * statistics.mean(row['iteration_s']):.1f}")
        for row in results["checks"]
    ]
    return markdown((*keys, "iteration, ms"), rows)


if __name__ == "__main__" and sys.argv[1:2] == ["--reduce"]:
    print(json.dumps(_reduce(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
