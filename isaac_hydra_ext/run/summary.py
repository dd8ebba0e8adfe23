"""`summary.json`: what a run has come to so far.

Runs in the learner's main thread.
"""

import contextlib
import json
import platform
from math import inf
from pathlib import Path
from typing import Any

import gymnasium
import hydra
import numpy as np
import torch

from isaac_hydra_ext import __version__
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.run.episodes import EpisodeTracker
from isaac_hydra_ext.run.totals import RunTotals
from isaac_hydra_ext.terminal.console import NO_EPISODE


def summarize(
    status: str,
    totals: RunTotals,
    counts: RolloutCounts,
    episodes: EpisodeTracker | None,
    device: torch.device,
) -> dict[str, Any]:
    """Return what `summary.json` says; `wall_s` is of the iterations, without start-up.

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
        "fps": round(totals.fps, 1),
        "fps_left_out": totals.fps_left_out,
        "mean_return": episodes.mean_return if episodes else None,
        "best_return": totals.best_return,
        "mean_episode_length": episodes.mean_length if episodes else None,
        "reward_per_step": episodes.reward_per_step if episodes else None,
        "no_mean_return": None if episodes and episodes.mean_return is not None else NO_EPISODE,
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
        with contextlib.suppress(OSError):  # the error above is the one to report
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
