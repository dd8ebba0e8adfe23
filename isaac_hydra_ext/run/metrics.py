"""What an iteration's rollouts and evaluations report, by tag.

Runs in the learner's main thread, on host memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isaac_hydra_ext.rollout.slot import Slot

# What the user misses when a slot has no room for it.
LEFT_OUT = {
    "log": "its metrics are not shown",
    "env_state": "a resumed run starts its episodes anew",
    "notes": "see its log",
}


def collection_metrics(
    iteration: int, slots: list[Slot], extras: list[dict[str, Any]]
) -> dict[str, float]:
    """Read what the slots' headers and the envs' logs say, before the slots go back.

    Args:
        iteration: k, the version that learns.
        slots: Of rollout k, one a worker.
        extras: What `Slot.read_extra` gave for each.
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
        "Async/workers_wait_s": float(np.mean([h["wait_s"] for h in headers])),
    }


def mean_of_ranks(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the ranks that have it."""
    tags = dict.fromkeys(tag for of_rank in metrics for tag in of_rank)
    known = {tag: [of_rank[tag] for of_rank in metrics if tag in of_rank] for tag in tags}
    return {tag: sum(values) / len(values) for tag, values in known.items()}


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
