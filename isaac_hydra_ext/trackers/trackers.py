"""All trackers of a run behind one door. Runs in the learner's main thread.

Whatever one of them raises is told once, and it is left alone from then on: a curve is never worth
a run.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from isaac_hydra_ext.config.schema import LoggingConfig
from isaac_hydra_ext.errors import RunInterrupted, shown
from isaac_hydra_ext.trackers.aliases import with_aliases
from isaac_hydra_ext.trackers.hosted import SwanLabTracker, WandbTracker, check_hosted
from isaac_hydra_ext.trackers.in_thread import TrackerInThread
from isaac_hydra_ext.trackers.local import CsvTracker, TensorBoardTracker
from isaac_hydra_ext.trackers.tracker import TrackedRun, Tracker

TRACKERS: dict[str, tuple[str, Callable[[TrackedRun, LoggingConfig], Tracker]]] = {
    "tensorboard": ("TensorBoard", TensorBoardTracker),
    "csv": ("CSV", CsvTracker),
    "wandb": ("Weights & Biases", WandbTracker),
    "swanlab": ("SwanLab", SwanLabTracker),
}
HOSTED = ("wandb", "swanlab")
IDS = "trackers.json"  # a run's names in its trackers, for whoever resumes it


def check_trackers(config: LoggingConfig) -> None:
    """Refuse trackers that cannot work; imports what they need.

    Raises:
        MissingDependencyError: A package cannot be imported; names the extra to install.
        ConfigError: A login is missing.
    """
    for name in HOSTED:
        if name in config.backends:
            check_hosted(name, config)


class Trackers:
    """What `logging.backends` names, less what has failed."""

    def __init__(
        self,
        config: LoggingConfig,
        run: TrackedRun,
        warn: Callable[[str], None],
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open them all.

        Args:
            config: The `logging` section.
            run: What they are told of it; its `run_id` is found here.
            warn: Told of each that fails.
            hurry: Whether the user will wait no longer for an upload.
        """
        self._aliases, self._warn = config.aliases, warn
        self._open: dict[str, Tracker] = {}
        self._no_videos: set[str] = set()
        ids = _read_ids(run.previous_dir)
        for name in dict.fromkeys(config.backends):
            known = replace(run, run_id=ids.get(name))
            self._try(name, lambda name=name, known=known: self._add(name, config, known, hurry))
        own = {name: tracker.run_id for name, tracker in self._open.items() if tracker.run_id}
        if own:
            try:
                (run.run_dir / IDS).write_text(json.dumps(own))
            except OSError as e:
                warn(f"{IDS} cannot be written ({e}): a resumed run would begin new curves")

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        """Add one point to each curve, in each tracker."""
        points = with_aliases(metrics, self._aliases)
        for name, tracker in list(self._open.items()):
            self._try(name, lambda tracker=tracker: tracker.log(points, iteration))

    def log_video(self, tag: str, path: Path, iteration: int) -> None:
        """Show a video where that is possible; where it is not, the tracker goes on without."""
        for name, tracker in self._open.items():
            if name in self._no_videos:
                continue
            try:
                tracker.log_video(tag, path, iteration)
            except RunInterrupted:
                raise
            except Exception as e:  # of a library that decodes, encodes or uploads it
                self._no_videos.add(name)
                self._warn(f"{TRACKERS[name][0]}: no videos ({type(e).__name__}: {shown(e, 300)})")

    def flush(self) -> None:
        """Bring all points to disk."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.flush)

    def close(self) -> list[str]:
        """Close them all, each within a minute; returns the commands that upload what is here."""
        commands = [tracker.afterwards for tracker in self._open.values()]
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.close)
        self._open.clear()
        return [command for command in commands if command]

    def _add(
        self, name: str, config: LoggingConfig, run: TrackedRun, hurry: Callable[[], bool]
    ) -> None:
        make = TRACKERS[name][1]
        self._open[name] = (
            TrackerInThread(lambda: make(run, config), hurry)
            if name in HOSTED
            else make(run, config)
        )

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except RunInterrupted:
            raise
        except Exception as e:  # of any kind: these are other people's libraries and services
            self._open.pop(name, None)
            what = f"{type(e).__name__}: {shown(e, 300)}"
            self._warn(f"{TRACKERS[name][0]}: {what}; the run goes on without it")


def _read_ids(directory: Path | None) -> dict[str, str]:
    """Return what an earlier run is called in its trackers; nothing where that is not known."""
    if directory is None:
        return {}
    try:
        ids = json.loads((directory / IDS).read_text())
    except (OSError, ValueError):
        return {}
    known = ids.items() if isinstance(ids, dict) else ()
    return {k: v for k, v in known if k in TRACKERS and isinstance(v, str) and v.isalnum()}
