"""Sums over a whole run, and the metrics that follow from them.

Runs in the learner's main thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from isaac_hydra_ext.errors import shown
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.run.episodes import EpisodeTracker


@dataclass
class RunTotals:
    """Sums over the whole run, earlier processes of a resumed run included.

    `steady_*` are of the iterations that `SteadyRate` calls steady.
    """

    iterations: int = 0
    env_steps: int = 0
    wall_s: float = 0.0
    best_return: float | None = None
    policy_lag_sum: float = 0.0
    learner_idle_s: float = 0.0
    workers_wait_s: float = 0.0
    bad_updates: int = 0
    worker_restarts: int = 0
    samples_produced: int = 0
    samples_consumed: int = 0
    samples_abandoned: int = 0
    samples_dropped: int = 0
    steady_iterations: int = 0
    steady_env_steps: int = 0
    steady_s: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunTotals":
        """Take over the totals of a checkpoint whose metadata has been checked.

        Raises:
            ValueError: They have a field that is unknown here, or null where a number belongs.
        """
        known = {f.name: f for f in fields(cls)}
        for name, value in data.items():
            if name not in known or (value is None and known[name].default is not None):
                raise ValueError(f"damaged metadata: totals.{shown(name)} is {shown(repr(value))}")
        return cls(**data)

    def add(
        self, metrics: dict[str, float], episodes: EpisodeTracker, samples: int, steady: bool
    ) -> dict[str, float]:
        """Add one iteration; returns the metrics that follow from it.

        Args:
            metrics: Of the iteration.
            episodes: Which have seen its rollouts.
            samples: N_buffer.
            steady: Whether it is like the rest: `SteadyRate.is_steady`.
        """
        if steady:
            self.steady_iterations += 1
            self.steady_env_steps += samples
            self.steady_s += metrics["Perf/iteration_time"]
        self.iterations += 1
        self.env_steps += samples
        self.wall_s += metrics["Perf/iteration_time"]
        self.policy_lag_sum += metrics["Async/policy_lag"]
        self.learner_idle_s += metrics["Async/learner_idle_s"]
        self.workers_wait_s += metrics["Async/workers_wait_s"]
        self.bad_updates += int(metrics.get("Loss/undone", 0.0))
        more = {"Async/bad_updates": float(self.bad_updates)}
        if episodes.reward_per_step is not None:
            more["Train/reward_per_step"] = episodes.reward_per_step
        mean_return, mean_length = episodes.mean_return, episodes.mean_length
        if mean_return is not None and mean_length is not None:
            best = self.best_return
            self.best_return = mean_return if best is None else max(best, mean_return)
            more["Train/mean_reward"] = mean_return
            more["Train/mean_episode_length"] = mean_length
        return more

    @property
    def fps(self) -> float:
        """Env steps per second of the steady iterations; of all where none has been steady."""
        if self.steady_s:
            return self.steady_env_steps / self.steady_s
        return self.env_steps / self.wall_s if self.wall_s else 0.0

    @property
    def fps_left_out(self) -> dict[str, Any]:
        """What `fps` leaves out: how many iterations, and their time [s]."""
        if not self.steady_s:
            return {"iterations": 0, "wall_s": 0.0}
        left_s = round(self.wall_s - self.steady_s, 3)
        return {"iterations": self.iterations - self.steady_iterations, "wall_s": left_s}

    def sample_metrics(self, counts: RolloutCounts) -> dict[str, float]:
        """Return the sample counters by tag."""
        return {f"Async/{name}": float(n) for name, n in self.with_counts(counts).items()}

    def with_counts(self, counts: RolloutCounts) -> dict[str, int]:
        """Return the sample counters with this process's share added.

        Abandoned are all that were not learned from; dropped, those of them that were left out of
        a rollout for NaN or Inf.
        """
        return {
            "worker_restarts": self.worker_restarts + counts.restarts,
            "samples_produced": self.samples_produced + counts.produced,
            "samples_consumed": self.samples_consumed + counts.consumed,
            "samples_abandoned": self.samples_abandoned + counts.abandoned,
            "samples_dropped": self.samples_dropped + counts.dropped,
        }
