"""What one run's TensorBoard events hold of one tag. Runs where curves are drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isaac_hydra_ext.errors import ConfigError, did_you_mean

RETURN = "Train/mean_reward"
SAMPLES = "Async/samples_consumed"
FILES = "events.out.tfevents.*"


@dataclass(frozen=True)
class Points:
    """The points of one tag.

    Attributes:
        steps: Their iterations.
        x: On the axis that was asked for.
        y: The values.
        first: The first iteration that has a point of any tag.
        clock: Iterations and the seconds at their end, since the run's first point.
    """

    steps: np.ndarray
    x: np.ndarray
    y: np.ndarray
    first: float
    clock: tuple[np.ndarray, np.ndarray]

    def seconds_until(self, iteration: float) -> float:
        """Return when an iteration ended; the run's end where it has not come to it."""
        steps, seconds = self.clock
        return float(seconds[steps <= iteration][-1]) if (steps <= iteration).any() else 0.0


def read_points(run_dir: Path, tag: str, axis: str) -> Points:
    """Read one tag of one run's event files.

    Args:
        run_dir: Of the run.
        tag: As in TensorBoard.
        axis: samples, seconds (since the run's first point) or iterations.

    Raises:
        ConfigError: The run has no such points; names near tags.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not list(run_dir.glob(FILES)):
        raise ConfigError(
            f"{run_dir}: has no TensorBoard events; was tensorboard among logging.backends?"
        )
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    tags = events.Tags()["scalars"]
    if tag not in tags:
        why = did_you_mean(tag, tags) or f"; there are {', '.join(sorted(tags)) or 'none'}"
        if tag == RETURN and tags:
            why = ": no episode has ended that counts"
        raise ConfigError(f"{run_dir}: no points of {tag}{why}")
    if SAMPLES not in tags:
        raise ConfigError(f"{run_dir}: its events have no {SAMPLES}; are they a run's of ours?")
    found, ticks = events.Scalars(tag), events.Scalars(SAMPLES)
    firsts = [events.Scalars(t)[0] for t in tags]
    begin = min(p.wall_time for p in firsts)
    steps = np.array([float(p.step) for p in found])
    tick_steps = np.array([float(p.step) for p in ticks])
    if axis == "iterations":
        x = steps
    elif axis == "seconds":
        x = np.array([p.wall_time - begin for p in found])
    else:
        x = np.interp(steps, tick_steps, [p.value for p in ticks])
    clock = tick_steps, np.array([p.wall_time - begin for p in ticks])
    y = np.array([p.value for p in found])
    return Points(steps, x, y, float(min(p.step for p in firsts)), clock)
