"""What a run reports: finished episodes, totals, metrics by tag, `summary.json`.

Runs in the learner's main thread, on host memory.
"""

import contextlib
import json
import platform
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import gymnasium
import hydra
import numpy as np
import torch

from isaac_hydra_ext import __version__
from isaac_hydra_ext.evaluation.episodes import summarize_episodes
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.rollout.slot import Slot

# What the user misses when a slot has no room for it.
LEFT_OUT = {
    "log": "its metrics are not shown",
    "env_state": "a resumed run starts its episodes anew",
    "notes": "see its log",
}
WINDOW = 100  # finished episodes that mean_return is over


class EpisodeTracker:
    """Returns and lengths of finished episodes, of raw rewards, over all workers.

    An env's first episode does not count where it began at a random time.
    """

    def __init__(self, num_collectors: int, num_envs: int, random_start: list[bool]) -> None:
        """Start with fresh episodes everywhere.

        Args:
            num_collectors: W, or 1 with W = 0.
            num_envs: B.
            random_start: Per collector; its first episodes are partial.
        """
        shape = (num_collectors, num_envs)
        self._return_WB = np.zeros(shape)
        self._length_WB = np.zeros(shape, np.int64)
        self._partial_WB = np.repeat(np.array(random_start, bool)[:, None], num_envs, axis=1)
        self._random_start = random_start
        self._generation = [0] * num_collectors
        self._finished: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self.total_finished = 0

    def observe(self, slots: list[Slot]) -> None:
        """Read one iteration's rewards and flags, in worker order, before the slots go back.

        Steps of envs that were left out count for no episode.
        """
        for w, slot in enumerate(slots):
            if (generation := int(slot.header["generation"][0])) != self._generation[w]:
                self._generation[w] = generation  # a new process: its episodes are new ones
                self._return_WB[w], self._length_WB[w] = 0.0, 0
                self._partial_WB[w] = self._random_start[w]
        reward_TWB = np.stack([s.reward_TB.cpu().numpy() for s in slots], axis=1)
        done_TWB = np.stack(
            [(s.terminated_TB | s.truncated_TB).cpu().numpy() for s in slots], axis=1
        )
        dropped_WB = np.stack([s.dropped_B.numpy() for s in slots])
        return_N, length_N = self._return_WB.reshape(-1), self._length_WB.reshape(-1)  # views
        partial_N, dropped_N = self._partial_WB.reshape(-1), dropped_WB.reshape(-1)
        for reward_WB, done_WB in zip(reward_TWB, done_TWB, strict=True):
            self._return_WB += reward_WB
            self._length_WB += 1
            ended = np.flatnonzero(done_WB)  # few of thousands: only they are looked at
            if not len(ended):
                continue
            counted = ended[~(partial_N[ended] | dropped_N[ended])]
            finished = zip(return_N[counted].tolist(), length_N[counted].tolist(), strict=True)
            self._finished.extend(finished)
            self.total_finished += len(counted)
            return_N[ended], length_N[ended], partial_N[ended] = 0.0, 0, False
        for w, slot in enumerate(slots):
            restarted_B = slot.restarted_B.numpy()
            self._return_WB[w, restarted_B], self._length_WB[w, restarted_B] = 0.0, 0
            # An env that began anew alone is at the start of an episode; where all did, for the
            # sake of one, they are where they began the run.
            all_did = bool((restarted_B & ~dropped_WB[w]).any())
            self._partial_WB[w, restarted_B] = all_did and self._random_start[w]

    def summary(self) -> dict[str, Any] | None:
        """Return `summarize_episodes` of the last 100 finished ones; None before the first."""
        if not self._finished:
            return None
        return summarize_episodes(*zip(*self._finished, strict=True))

    @property
    def mean_return(self) -> float | None:
        """Over the last 100 finished episodes; None before the first."""
        return float(np.mean([r for r, _ in self._finished])) if self._finished else None

    @property
    def mean_length(self) -> float | None:
        """[steps], likewise."""
        return float(np.mean([n for _, n in self._finished])) if self._finished else None

    def state_dict(self, episodes_go_on: bool) -> dict[str, Any]:
        """Return JSON-ready data; running episodes are kept if the envs' states are."""
        state: dict[str, Any] = {"finished": list(self._finished), "total": self.total_finished}
        if episodes_go_on:
            state["running"] = {
                "return": self._return_WB.tolist(),
                "length": self._length_WB.tolist(),
                "partial": self._partial_WB.tolist(),
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s data."""
        self._finished.extend((float(r), int(n)) for r, n in state["finished"])
        self.total_finished = state["total"]
        if "running" in state:
            running = state["running"]
            self._return_WB[:] = running["return"]
            self._length_WB[:] = running["length"]
            self._partial_WB[:] = running["partial"]


def collection_metrics(
    iteration: int, slots: list[Slot], extras: list[dict[str, Any]], idle_s: float
) -> dict[str, float]:
    """Read what the slots' headers and the envs' logs say, before the slots go back.

    Args:
        iteration: k, the version that learns.
        slots: Of rollout k, one a worker.
        extras: What `Slot.read_extra` gave for each.
        idle_s: How long the learner waited for them.
    """
    headers = [slot.header[0] for slot in slots]
    env_log: dict[str, list[float]] = {}
    for extra in extras:
        for tag, value in extra.get("log", {}).items():
            env_log.setdefault(tag, []).append(value)
    return {
        **{tag: sum(values) / len(values) for tag, values in env_log.items()},
        "Perf/collection_time": float(np.mean([h["collect_s"] for h in headers])),
        "Async/policy_lag": float(np.mean([iteration - h["policy_version"] for h in headers])),
        "Async/learner_idle_s": idle_s,
        "Async/workers_wait_s": float(np.mean([h["wait_s"] for h in headers])),
    }


def evaluation_metrics(iteration: int, result: Mapping[str, Any], skipped: int) -> dict[str, float]:
    """Return an evaluation by tag; its points belong at `iteration`, which has passed.

    Args:
        iteration: Whose weights were played.
        result: As `summarize_episodes`, and `seconds` where the evaluator has played.
        skipped: Evaluations that were, so far, as the one before was not done.
    """
    metrics = {
        "Eval/mean_return": result["mean_return"],
        "Eval/std_return": result["std_return"],
        "Eval/mean_episode_length": result["mean_length"],
        "Eval/episodes": float(result["episodes"]),
        "Eval/iteration": float(iteration),
        "Eval/skipped": float(skipped),
    }
    return metrics | ({"Eval/time": result["seconds"]} if "seconds" in result else {})


def rollout_notes(iteration: int, extras: list[dict[str, Any]], said: set[str]) -> list[str]:
    """Return what collectors have to say to the user.

    Args:
        iteration: k of the rollouts.
        extras: What `Slot.read_extra` gave for each, in worker order.
        said: What need not be said again; added to.
    """
    notes = []
    for w, extra in enumerate(extras):
        notes += [f"worker {w}: {note}" for note in extra.get("notes", [])]
        for name in extra.get("too_large", {}).keys() - said:
            said.add(name)
            notes.append(
                f"worker {w}, rollout {iteration}: the env's {name} takes "
                f"{extra['too_large'][name]:,} bytes of JSON, more than fits beside a rollout; it "
                f"is left out: {LEFT_OUT[name]}"
            )
    return notes


@dataclass
class RunTotals:
    """Sums over the whole run, earlier processes of a resumed run included."""

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

    def add(
        self, metrics: dict[str, float], episodes: EpisodeTracker, samples: int
    ) -> dict[str, float]:
        """Add one iteration; returns the metrics that follow from it."""
        self.iterations += 1
        self.env_steps += samples
        self.wall_s += metrics["Perf/iteration_time"]
        self.policy_lag_sum += metrics["Async/policy_lag"]
        self.learner_idle_s += metrics["Async/learner_idle_s"]
        self.workers_wait_s += metrics["Async/workers_wait_s"]
        self.bad_updates += int(metrics["Loss/undone"])
        more = {
            "Perf/total_fps": samples / metrics["Perf/iteration_time"],
            "Async/bad_updates": float(self.bad_updates),
        }
        mean_return, mean_length = episodes.mean_return, episodes.mean_length
        if mean_return is not None and mean_length is not None:
            best = self.best_return
            self.best_return = mean_return if best is None else max(best, mean_return)
            more["Train/mean_reward"] = mean_return
            more["Train/mean_episode_length"] = mean_length
        return more

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


def summarize(
    status: str,
    totals: RunTotals,
    counts: RolloutCounts,
    episodes: EpisodeTracker | None,
    device: torch.device,
) -> dict[str, Any]:
    """Return what `summary.json` says; `wall_s` and `fps` are of the iterations, without start-up.

    Args:
        status: running, completed, interrupted or failed.
        totals: Over all processes of the run.
        counts: Of this process, added to them.
        episodes: None if the run has not got as far as that.
        device: The learner's.
    """
    counters = totals.with_counts(counts)
    summary: dict[str, Any] = {
        "status": status,
        "iterations": totals.iterations,
        "env_steps": totals.env_steps,
        "wall_s": round(totals.wall_s, 3),
        "fps": round(totals.env_steps / totals.wall_s, 1) if totals.wall_s else 0.0,
        "mean_return": episodes.mean_return if episodes else None,
        "best_return": totals.best_return,
        "mean_episode_length": episodes.mean_length if episodes else None,
        "policy_lag_mean": totals.policy_lag_sum / max(1, totals.iterations),
        **{name: n for name, n in counters.items() if name != "samples_dropped"},
        "learner_idle_s": round(totals.learner_idle_s, 3),
        "workers_wait_s": round(totals.workers_wait_s, 3),
        "device": str(device),
        "versions": library_versions(),
    }
    return {k: None if v in (inf, -inf) or v != v else v for k, v in summary.items()}


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json`, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # what has failed is told above
            temporary.unlink()


def library_versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    return {
        "isaac_hydra_ext": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gymnasium": gymnasium.__version__,
        "hydra": hydra.__version__,
        "numpy": np.__version__,
    }
