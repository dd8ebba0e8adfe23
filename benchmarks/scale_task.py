"""What the scale model knows of a task, and of what connects ranks and machines. Plain arithmetic.

Rollouts scale with T and with what an env costs, updates with minibatches and samples; each rank
learns from its own workers.
"""

from dataclasses import dataclass
from math import ceil, inf, log2
from typing import Any

import numpy as np

from benchmarks.scale_sim import Plan


@dataclass(frozen=True)
class Collective:
    """An all-reduce of R ranks; each sends 2 (R - 1) / R of the bytes.

    Attributes:
        latency_s: Of a message.
        gb_s: What a rank sends.
        tree: 2 log2 R messages one after the other, as NCCL for small vectors; else a ring's
            2 (R - 1), as gloo.
        source: `measured`, or `assumed`, and of what.
    """

    latency_s: float
    gb_s: float
    tree: bool
    source: str

    def seconds(self, ranks: int, nbytes: float) -> float:
        """Return what one reduction takes [s]."""
        messages = 2 * (ceil(log2(ranks)) if self.tree else ranks - 1)
        return messages * self.latency_s + 2 * (ranks - 1) / ranks * nbytes / self.gb_s / 1e9


ASSUMED = {
    "nvlink": Collective(5e-6, 200.0, True, "assumed: NCCL in one machine"),
    "infiniband": Collective(1e-5, 40.0, True, "assumed: NCCL, 400 Gbit/s a rank"),
    "ethernet": Collective(5e-5, 1.1, False, "assumed: gloo, 10 Gbit/s a rank"),
}


@dataclass(frozen=True)
class Shape:
    """What the knobs say; `workers` are those of all ranks together, a multiple of `ranks`."""

    ranks: int
    workers: int
    lag: int
    envs: int
    steps: int
    minibatches: int


class Task:
    """The measured times of one task, and how they change with the knobs."""

    def __init__(self, row: dict[str, Any]) -> None:
        """Take a row of the recorded inputs."""
        self._row = row
        self._collect = np.array(row["collect_s"]) / np.mean(row["collect_s"])
        self._update = np.array(row["update_s"]) / np.mean(row["update_s"])
        self.parameters: int = row["parameters"]
        self.local: int = row["local"]  # workers that fit beside a rank

    def shape(self, ranks: int, workers: int, lag: int) -> Shape:
        """Return the recorded sizes with these workers."""
        row = self._row
        return Shape(ranks, workers, lag, row["envs"], row["steps"], row["minibatches"])

    def collect_s(self, shape: Shape) -> float:
        """Return the mean rollout of a worker [s]."""
        fixed, per_env = line_through(self._row["collect_by_envs"])
        return (fixed + per_env * shape.envs) * shape.steps / self._row["steps"]

    def update_s(self, shape: Shape) -> float:
        """Return the mean update of a rank [s], without the all-reduce."""
        fixed, per_sample = line_through(self._row["update_by_samples"])
        samples = shape.workers // shape.ranks * shape.envs * shape.steps
        return fixed * shape.minibatches / self._row["minibatches"] + per_sample * samples

    def reductions(self, shape: Shape) -> int:
        """Return the minibatch steps of an update."""
        return self._row["epochs"] * shape.minibatches

    def rollout_bytes(self, shape: Shape) -> float:
        """Return the bytes of a worker's rollout."""
        return shape.envs * shape.steps * self._row["bytes_per_sample"]

    def draw(
        self, shape: Shape, iterations: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw what each rollout [K, R, W] and each update [K, R] takes [s].

        A rollout that is m times as long has the mean of m draws: its tail is shorter.
        """
        times = max(1, round(shape.steps / self._row["steps"]))
        size = (times, iterations, shape.ranks, shape.workers // shape.ranks)
        collect = self.collect_s(shape) * rng.choice(self._collect, size).mean(0)
        update = rng.choice(self._update, (iterations, shape.ranks))
        return collect, self.update_s(shape) * update


def line_through(points: list[list[float]]) -> tuple[float, float]:
    """Return the fixed part and the slope of two points (x, y); neither is negative."""
    (x0, y0), (x1, y1) = points
    slope = min(max(0.0, (y1 - y0) / (x1 - x0)), y0 / x0)
    return y0 - slope * x0, slope


@dataclass(frozen=True)
class Links:
    """What rollouts, weights and gradients travel over.

    Attributes:
        collective: Of the ranks.
        network_gb_s: Between a rank's machine and the others.
        copy_gb_s: Out of the object store into a slot.
        latency_s: Of a remote rollout.
        local: How many of a rank's workers have cores on its own machine.
    """

    collective: Collective
    network_gb_s: float
    copy_gb_s: float
    latency_s: float
    local: int

    def plan(self, task: Task, shape: Shape, cores: float = inf) -> Plan:
        """Return what the simulator runs. Weights go to one machine after the other."""
        per_rank = shape.workers // shape.ranks
        remote = max(0, per_rank - self.local)
        nbytes, weights = task.rollout_bytes(shape), 4 * task.parameters
        reduction = self.collective.seconds(shape.ranks, weights)
        machines = -(-remote // max(1, self.local))
        return Plan(
            ranks=shape.ranks,
            workers=per_rank,
            lag=shape.lag,
            cores=cores,
            remote=remote,
            link_s=nbytes * (1 / self.network_gb_s + 1 / self.copy_gb_s) / 1e9,
            weights_s=self.latency_s + machines * weights / self.network_gb_s / 1e9,
            allreduce_s=task.reductions(shape) * reduction,
        )
