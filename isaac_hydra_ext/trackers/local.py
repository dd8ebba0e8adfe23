"""Trackers that write files and need nothing else. Run in the learner's main thread."""

import contextlib
import csv
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

from isaac_hydra_ext.config.schema import LoggingConfig
from isaac_hydra_ext.evaluation.video import gif_summary
from isaac_hydra_ext.trackers.tracker import TrackedRun

CSV_NAME = "metrics.csv"
STEP = "iteration"
FLUSH_S = 10  # how long TensorBoard keeps points to itself
RESULTS = ("Train/mean_reward", "Train/mean_episode_length", "Eval/mean_return", "Perf/total_fps")


class TensorBoardTracker:
    """Event files in the run's directory."""

    def __init__(self, run: TrackedRun, config: LoggingConfig) -> None:
        """Open an event file; see `TrackedRun`."""
        self.run_id: str | None = None
        self.afterwards = ""
        self._run = run
        self._hook = threading.excepthook
        threading.excepthook = _left_to_the_next_call(self._hook)
        self._open()

    def _open(self) -> None:
        from torch.utils.tensorboard.summary import hparams  # here alone: slow to import
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(self._run.run_dir), flush_secs=FLUSH_S)
        # For the HParams tab, whose columns are last points of curves. `add_hparams` would make a
        # run of its own of it.
        experiment, session, _ = hparams(self._run.hparams, dict.fromkeys(RESULTS, 0.0))
        for summary in (experiment, session):
            self._add_summary(summary)

    def _again_if_gone(self, write: Callable[[], None]) -> None:
        """Write; in a new file, where the directory was gone while the last one was written to."""
        try:
            write()
        except FileNotFoundError:
            self._open()
            write()

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        def add() -> None:
            for tag, value in metrics.items():
                self._writer.add_scalar(tag, value, iteration)

        self._again_if_gone(add)

    def log_video(self, tag: str, path: Path, iteration: int) -> None:
        """Log the GIF beside it, the one film that TensorBoard plays."""
        summary = gif_summary(tag, path)
        self._again_if_gone(lambda: self._add_summary(summary, iteration))

    def _add_summary(self, summary: Any, iteration: int = 0) -> None:
        file_writer = self._writer.file_writer
        assert file_writer is not None, "only a closed writer has none"
        file_writer.add_summary(summary, iteration)

    def flush(self) -> None:
        self._again_if_gone(lambda: self._writer.flush())

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._hook


def _left_to_the_next_call(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a hook for threads that leaves TensorBoard's error to its next call, which raises it.

    Else its thread's traceback stands in the console when a disk is full or a directory is gone.
    """

    def hook(raised: threading.ExceptHookArgs) -> None:
        if not type(raised.thread).__module__.startswith("tensorboard."):
            otherwise(raised)

    return hook


class CsvTracker:
    """`metrics.csv`: one row an iteration, one column a tag.

    A tag that is new (no episode has ended in the first iterations) rewrites the file with one
    column more. A resumed run's file begins with the rows of the run that it goes on from.
    """

    def __init__(self, run: TrackedRun, config: LoggingConfig) -> None:
        """Begin the file, with an earlier run's rows; see `TrackedRun`."""
        self.run_id: str | None = None
        self.afterwards = ""
        self._path = run.run_dir / CSV_NAME
        self._columns = [STEP]
        before = run.previous_dir / CSV_NAME if run.previous_dir else None
        if before is not None and before.exists():
            self._columns = _columns(before)
            # Rows after the checkpoint are of iterations that are done again here.
            self._write(before, run.first)
        else:
            self._write()

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        if new := [tag for tag in metrics if tag not in self._columns]:
            self._file.close()
            self._columns += new
            self._write(self._path)  # all: an evaluation's point is of an earlier iteration
        self._rows.writerow({STEP: iteration, **metrics})

    def _write(self, source: Path | None = None, last: float = inf) -> None:
        """Write the file anew, with a source's rows, and leave it open; it is whole at any time."""
        temporary = self._path.with_name(f".{CSV_NAME}.tmp")
        try:
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(_rows(source, last) if source is not None else ())
            temporary.replace(self._path)
        finally:
            with contextlib.suppress(OSError):  # what has failed is told above
                temporary.unlink()
        self._file = self._path.open("a", buffering=1, newline="")  # a row at a time
        self._rows = csv.DictWriter(self._file, self._columns)

    def log_video(self, tag: str, path: Path, iteration: int) -> None:
        """Nothing to do: a table has no videos."""

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _columns(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file).fieldnames or [STEP])


def _rows(path: Path, last: float) -> Iterator[dict[str, str]]:
    """Yield the rows up to iteration `last`, one in memory at a time: a long run has a million."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row[STEP].isdigit() and int(row[STEP]) <= last:
                yield row
