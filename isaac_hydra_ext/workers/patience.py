"""How long a worker may be silent, or build its env. Runs in the learner's main thread."""

import time
from collections.abc import Iterable

from isaac_hydra_ext.config.schema import RolloutConfig
from isaac_hydra_ext.workers.handle import WorkerHandle

PAUSE_S = 5.0  # between two looks: nobody was listening
TELL_S = 30.0  # of silence in a first rollout, after which the user is told


class Patience:
    """Time limits, of the time in which somebody was listening."""

    def __init__(self) -> None:
        """Begin to listen."""
        self._listened = time.monotonic()
        self._listening_since = 0.0  # without a pause

    def listened(self, workers: Iterable[WorkerHandle]) -> None:
        """Take no time for silence in which nobody was listening; to be called after each look.

        The learner was at something else, or the whole container was paused, its workers with it.
        """
        now = time.monotonic()
        gap_s = now - self._listened
        if gap_s > PAUSE_S:
            self._listening_since = now
            for worker in workers:
                worker.deadline += gap_s
        self._listened = now

    def silence_s(self, beat_ns: int) -> float:
        """Return for how long a worker has been silent [s], whose heart beat last at `beat_ns`."""
        return time.monotonic() - max(beat_ns / 1e9, self._listening_since)


def silence_limit(worker: WorkerHandle, rollout: RolloutConfig) -> tuple[float, str]:
    """Return how long a collecting worker may be silent [s], and the knob that says so.

    A first step may compile kernels, or fill a simulator's caches, for minutes.
    """
    heartbeat_s, startup_s = rollout.heartbeat_timeout_s, rollout.startup_timeout_s
    if worker.has_collected or heartbeat_s >= startup_s:
        return heartbeat_s, "rollout.heartbeat_timeout_s"
    return startup_s, "rollout.startup_timeout_s"


def slow_start(worker: WorkerHandle, rollout: RolloutConfig, silent_s: float) -> str:
    """Return what to tell the user of a first rollout that takes long: once a worker, else ""."""
    if worker.has_collected or worker.is_slow:
        return ""
    if silent_s <= min(TELL_S, rollout.heartbeat_timeout_s):
        return ""
    worker.is_slow = True
    limit_s, knob = silence_limit(worker, rollout)
    return (
        f"{worker}: no step of its first rollout has ended for {silent_s:.0f} s; a first one may "
        f"compile kernels, and is waited for up to {limit_s:g} s ({knob})"
    )
