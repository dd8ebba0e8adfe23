"""What the terminal shows: a live table on a terminal, plain lines elsewhere.

Runs in the learner's main thread. Workers write to files, so nothing else draws on the screen.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.table import Table


@dataclass
class Progress:
    """One iteration, as it is shown."""

    iteration: int  # done so far
    total: int
    env_steps: int
    metrics: dict[str, float]
    eta_s: float


class RunConsole:
    """Prints messages, and shows progress in the mode that was asked for."""

    def __init__(self, mode: str) -> None:
        """Choose how to show progress.

        Args:
            mode: `logging.console`: auto, table, plain or quiet.
        """
        self._console = _Console(highlight=False, soft_wrap=True)
        if mode == "auto":
            mode = "table" if self._console.is_terminal else "plain"
        self._mode = mode
        self._live: Live | None = None
        self._title = ""

    def say(self, line: str) -> None:
        """Print one line, above the live table."""
        if self._mode != "quiet":
            self._write(lambda: self._console.print(line, markup=False))

    def warn(self, line: str) -> None:
        """Print one line in every mode: above the live table, else on stderr."""
        if self._live is not None:
            self._write(lambda: self._console.print(line, markup=False, style="yellow"))
        else:
            self._write(lambda: print(line, file=sys.stderr, flush=True))

    def start(self, title: str) -> None:
        """Begin showing progress."""
        self._title = title
        if self._mode == "table":
            live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live = live
            self._write(live.start)

    def show(self, progress: Progress) -> None:
        """Show one iteration."""
        live = self._live
        if live is not None:
            self._write(lambda: live.update(self._table(progress), refresh=True))
        elif self._mode == "plain":
            self._write(lambda: print(_line(progress), flush=True))

    def close(self) -> None:
        """Leave the last table standing."""
        live, self._live = self._live, None
        if live is not None:
            self._write(live.stop)

    def _write(self, write: Callable[[], None]) -> None:
        """Write; if nobody reads any more (`| head`, a closed terminal) the run goes on without."""
        try:
            write()
            sys.stdout.flush()
        except OSError:
            self._mode, self._live = "quiet", None
            self._console.quiet = True
            # What is still in the buffer is flushed when the interpreter ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)

    def _table(self, progress: Progress) -> Table:
        m = progress.metrics
        done = progress.iteration / progress.total
        table = Table(title=self._title, title_justify="left", show_header=False, min_width=72)
        for _ in range(2):
            table.add_column(style="cyan", no_wrap=True)
            table.add_column(justify="right", no_wrap=True, min_width=12)
        rows = [
            ("iteration", f"{progress.iteration}/{progress.total} ({done:.0%})"),
            ("time left", _duration(progress.eta_s)),
            ("env steps", f"{progress.env_steps:,}"),
            ("steps/s", f"{m['Perf/total_fps']:,.0f}"),
            ("mean return", _number(m.get("Train/mean_reward"))),
            ("mean length", _number(m.get("Train/mean_episode_length"))),
            ("surrogate loss", f"{m['Loss/surrogate']:.4f}"),
            ("value loss", f"{m['Loss/value']:.4f}"),
            ("entropy", f"{m['Loss/entropy']:.3f}"),
            ("action std", f"{m['Policy/mean_std']:.3f}"),
            ("KL", f"{m['Policy/kl']:.4f}"),
            ("learning rate", f"{m['Loss/learning_rate']:.2e}"),
            ("policy lag", f"{m['Async/policy_lag']:.2f}"),
            ("restarts", f"{m['Async/worker_restarts']:.0f}"),
            ("learner waits", _share(m["Async/learner_idle_s"], m["Perf/iteration_time"])),
            ("workers wait", _share(m["Async/workers_wait_s"], m["Perf/iteration_time"])),
        ]
        for (left, a), (right, b) in zip(rows[::2], rows[1::2], strict=True):
            table.add_row(left, a, right, b)
        return table


class _Console(Console):
    """rich ends the program when its reader is gone; a training should not end with its display."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _line(progress: Progress) -> str:
    m = progress.metrics
    restarts = m["Async/worker_restarts"]
    return (
        f"iteration {progress.iteration}/{progress.total}"
        f" | return {_number(m.get('Train/mean_reward'))}"
        f" | length {_number(m.get('Train/mean_episode_length'))}"
        f" | {m['Perf/total_fps']:,.0f} steps/s"
        f" | lag {m['Async/policy_lag']:.2f}"
        f" | learner waits {_share(m['Async/learner_idle_s'], m['Perf/iteration_time'])}"
        f" | workers wait {_share(m['Async/workers_wait_s'], m['Perf/iteration_time'])}"
        + (f" | restarts {restarts:.0f}" if restarts else "")
        + f" | ETA {_duration(progress.eta_s)}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _share(part_s: float, whole_s: float) -> str:
    return f"{min(1.0, part_s / whole_s):.0%}" if whole_s else "-"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class Clock:
    """Estimates the time left from the speed of recent iterations."""

    SMOOTHING = 0.05

    def __init__(self, total: int) -> None:
        """Count towards `total` iterations."""
        self._total = total
        self._iteration_s: float | None = None

    def tick(self, iteration_s: float, done: int) -> float:
        """Take one iteration's duration; returns the seconds left after `done` of them."""
        mean = self._iteration_s
        self._iteration_s = (
            iteration_s if mean is None else mean + self.SMOOTHING * (iteration_s - mean)
        )
        return self._iteration_s * (self._total - done)
