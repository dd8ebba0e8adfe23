"""What a tracker is, and what it is told of the run. Used in the learner's main thread."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class TrackedRun:
    """The run, as trackers need to know it.

    Attributes:
        run_dir: Where local files go.
        project: What the run belongs to: `experiment.name`.
        config: All of it, JSON-ready.
        hparams: What tells runs apart, from `hparams_of`.
        first: The iteration it begins with, above 0 where it is resumed.
        previous_dir: Of the run that it goes on from, if any.
        run_id: Of that run in this tracker, if it had one.
    """

    run_dir: Path
    project: str
    config: dict[str, Any]
    hparams: dict[str, bool | float | str] = field(default_factory=dict)
    first: int = 0
    previous_dir: Path | None = None
    run_id: str | None = None


class Tracker(Protocol):
    """One destination of curves. What it raises ends the tracker and not the run.

    Attributes:
        run_id: Under which a resumed run goes on with the same curves; None where files do.
        afterwards: The command that uploads what was kept here; empty where there is none.
    """

    run_id: str | None
    afterwards: str

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        """Add one point to each curve; the step is the learning iteration, as in rsl_rl."""
        ...

    def log_video(self, tag: str, path: Path, iteration: int) -> None:
        """Show a video file (MP4), if the tracker can."""
        ...

    def flush(self) -> None:
        """Bring all points to disk, so that a curve reaches as far as its checkpoint."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...
