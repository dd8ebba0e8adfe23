"""What the rollout buffer carries: a free environment through W workers, and memcpy beside it.

python -m benchmarks.pipeline --json benchmarks/results/pipeline.json

Real workers, their policy, the shared block and the messages; in the learner's place somebody who
looks at each slot and gives it back (`views`), or copies it into the learner's batch first
(`batch`). memcpy is one thread that copies frames of that size over as much memory as a slot has,
measured before the workers begin and after they have ended.
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import free_env
from benchmarks.common import markdown, run_benchmark
from isaac_hydra_ext.config.placement import set_learner_threads
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.pool import WorkerPool

STATE = ["float32", 48]
CAMERA = ["uint8", 100, 100, 3]
# Where the environment hands out frames, the policy is as cheap: what is left is the buffer.
NOISE: dict[str, Any] = {"fill": "noise", "hidden": [64, 64]}
FRAMES: dict[str, Any] = {"fill": "frames", "hidden": [8]}
TASKS: dict[str, dict[str, Any]] = {
    "48 floats, 4,096 envs, noise": {"obs": {"state": STATE}, "envs": 4096, **NOISE},
    "48 floats, 4,096 envs, frames": {"obs": {"state": STATE}, "envs": 4096, **FRAMES},
    "camera, 256 envs, noise": {
        "obs": {"state": STATE, "camera": CAMERA},
        "envs": 256,
        **NOISE,
    },
    "camera, 256 envs, frames": {
        "obs": {"state": STATE, "camera": CAMERA},
        "envs": 256,
        **FRAMES,
    },
}
WORKERS = (1, 2, 4)
READERS = ("views", "batch")
STEPS = 24
ROUNDS = 3
SECONDS = 4.0
LAG = 1


def measure(tasks: dict[str, dict[str, Any]], quick: bool) -> dict[str, Any]:
    """Measure every size with every W, several times in turn."""
    workers, rounds, seconds = (WORKERS[:1], 1, 0.5) if quick else (WORKERS, ROUNDS, SECONDS)
    rows = []
    with free_env.registered():
        for name, task in tasks.items():
            found = _measure_task(task, workers, rounds, seconds)
            for (w, reader), runs in found.items():
                row: dict[str, Any] = {
                    key: statistics.median(run[key] for run in runs) for key in runs[0]
                }
                row |= {"task": name, "workers": w, "reader": reader, "runs": runs}
                rows.append(row)
                print({k: v for k, v in row.items() if k != "runs"}, flush=True)
    return {"steps_per_env": STEPS, "policy_lag": LAG, "rows": rows}


def _measure_task(
    task: dict[str, Any], workers: Sequence[int], rounds: int, seconds: float
) -> dict[tuple[int, str], list[dict[str, float]]]:
    """Return the runs of every (W, reader); each round starts the workers anew."""
    found: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for w in workers:
            with Pipeline(make_config(task, w)) as pipeline:
                before = pipeline.memcpy(seconds / 4)
                pipeline.begin()
                runs = {reader: pipeline.drain(reader, seconds) for reader in READERS}
            memcpy = (before + pipeline.memcpy(seconds / 4)) / 2
            for reader, run in runs.items():
                run |= {"memcpy_gb_s": memcpy, "of_memcpy": run["gb_s"] / memcpy}
                found[w, reader].append(run)
    return found


class Pipeline:
    """Workers as a run has them, and what stands in the learner's place."""

    def __init__(self, config: RunConfig) -> None:
        """Start nothing yet."""
        self._config, self._stack = config, ExitStack()
        self._pool = WorkerPool(config, StopSignals())
        self._next = 0  # iteration to gather

    def __enter__(self) -> "Pipeline":
        """Start the workers; they wait for `begin`."""
        self._stack.callback(self._pool.close)
        run_dir = self._stack.enter_context(TemporaryDirectory())
        try:
            self._start(Path(run_dir))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End them."""
        self._stack.close()

    def _start(self, run_dir: Path) -> None:
        config, pool, cpu = self._config, self._pool, torch.device("cpu")
        steps = config.rollout.steps_per_env
        set_learner_threads(config)
        spec = pool.build(config, run_dir, None, 0)
        self._policy = ActorCritic(config.policy, spec, seed=1)
        layout = SlotLayout.of(spec, steps, self._policy)
        dtype = self._policy.distribution.action_dtype
        self._weights = pool.attach(layout, self._policy.flat.numel(), cpu)
        self._batch = RolloutBatch(spec, config.num_workers, steps, dtype, cpu)
        self._spare = Slot.allocate(layout, "cpu")
        rows = self._spare.rows.obs.values()
        self._sources = [[torch.ones_like(obs[0]) for obs in rows] for _ in range(free_env.FRAMES)]
        self.memcpy(0.1)  # the first pass over memory pays for its pages

    def begin(self) -> None:
        """Let the workers collect."""
        self._publish(0)
        for iteration in range(LAG + 1):
            self._pool.grant(0, iteration, save_env_state=False)
        for _ in range(2 * (LAG + 1)):  # as above, each slot's
            self._iterate("batch")

    def _publish(self, version: int) -> None:
        self._weights.publish(version, self._policy.flat)
        self._pool.announce(version)

    def _iterate(self, reader: str) -> dict[str, float]:
        """Take one iteration's slots and give them back; returns who waited how long."""
        started, k = time.monotonic(), self._next
        slots = self._pool.gather(k)
        waited = time.monotonic() - started
        headers = [slot.header[0] for slot in slots]
        workers_wait = sum(float(h["wait_s"]) for h in headers) / len(headers)
        if reader == "batch":
            self._batch.load(slots)
        self._pool.release(k)
        self._next = k + 1
        self._publish(k + 1)
        self._pool.grant(k + 1, k + 1 + LAG, save_env_state=False)
        return {"learner_wait_s": waited, "workers_wait_s": workers_wait}

    def drain(self, reader: str, seconds: float) -> dict[str, float]:
        """Take slots for a while; returns rates and shares."""
        rollouts, waits = 0, Counter()
        started = time.monotonic()
        while (took := time.monotonic() - started) < seconds:
            waits.update(self._iterate(reader))
            rollouts += self._config.num_workers
        steps = rollouts * self._spare.reward_TB.numel()
        return {
            "steps_per_s": steps / took,
            "gb_s": steps * self._bytes_per_step() / took / 1e9,
            "learner_waits": waits["learner_wait_s"] / took,
            "workers_wait": waits["workers_wait_s"] / took,
        }

    def _bytes_per_step(self) -> float:
        """Return what a rollout puts into its slot, for each step of one env."""
        slot = self._spare
        fields = [slot.action_TBA, slot.behavior_log_prob_TB, slot.reward_TB, *slot.obs.values()]
        fields += [slot.terminated_TB, slot.truncated_TB]
        return sum(x.nbytes for x in fields) / slot.reward_TB.numel()

    def memcpy(self, seconds: float) -> float:
        """Copy frames of the observations' size over a slot's memory, in one thread [GB/s]."""
        threads, copied = torch.get_num_threads(), 0
        torch.set_num_threads(1)
        started = time.monotonic()
        while (took := time.monotonic() - started) < seconds:
            for t in range(self._config.rollout.steps_per_env):
                for i, obs in enumerate(self._spare.rows.obs.values()):
                    source = self._sources[t % free_env.FRAMES][i]
                    obs[t].copy_(source)
                    copied += source.nbytes
        torch.set_num_threads(threads)
        return copied / took / 1e9


def make_config(task: dict[str, Any], workers: int, steps: int = STEPS) -> RunConfig:
    """Return the configuration of a pipeline.

    Args:
        task: See `TASKS`; `hidden` are the units of the policy's layers.
        workers: W.
        steps: T.
    """
    kwargs = {"obs": task["obs"], "fill": task["fill"], "actions": 12}
    config = load_run_config(
        {
            "env": {"kind": free_env.KIND, "kwargs": kwargs},
            "rollout": {
                "num_workers": workers,
                "envs_per_worker": task["envs"],
                "steps_per_env": steps,
                "max_policy_lag": LAG,
            },
            # The camera passes through; no network of a size that a CPU has time for reads it.
            "policy": {
                "hidden_dims": task["hidden"],
                "obs_groups": {"actor": ["state"], "critic": ["state"]},
            },
        }
    )
    complete(config, task["envs"], [])
    return config


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = (
        *("environment", "W", "learner", "steps/s", "GB/s", "of one memcpy"),
        *("learner waits", "workers wait"),
    )
    rows = [
        (
            *(r["task"], r["workers"], r["reader"], f"{r['steps_per_s']:,.0f}"),
            *(f"{r['gb_s']:.2f}", f"{r['of_memcpy']:.2f}"),
            *(f"{r['learner_waits']:.0%}", f"{r['workers_wait']:.0%}"),
        )
        for r in results["rows"]
    ]
    return markdown(header, rows)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
