"""What the terminal shows: a live table on a terminal, plain lines elsewhere.

Runs in the learner's main thread, but for the progress of a start, which has a thread of its own.
Workers write to files, so nothing else draws on the screen.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

from rich.console import Console
from rich.live import Live
from rich.table import Table

from isaac_hydra_ext.system.activity import Activity
from isaac_hydra_ext.system.streams import drop, say_error
from isaac_hydra_ext.terminal.clock import as_duration
from isaac_hydra_ext.terminal.metric import Metric
from isaac_hydra_ext.terminal.start_progress import LINE_EVERY_S, REFRESH_S, StartProgress, terminal

MIN_REDRAW_S = 0.1  # nobody reads faster, and every redraw may flicker
ROWS = 8
LEARNED = 6  # cells that the algorithm fills
# Columns of the terminal that a table of so many pairs (name, value) needs.
THREE_PAIRS, TWO_PAIRS = 116, 76
NAME_WIDTH = 22  # of the third column
MAX_PIDS = 8
MORE = {
    "explained variance": "Loss/explained_variance",
    "clip fraction": "Policy/clip_fraction",
    "gradient norm, actor": "Loss/actor_grad_norm",
    "gradient norm, critic": "Loss/critic_grad_norm",
    "iteration [s]": "Perf/iteration_time",
    "collecting [s]": "Perf/collection_time",
    "learning [s]": "Perf/learning_time",
    "samples abandoned": "Async/samples_abandoned",
}
NO_EPISODE = "no whole episode has ended"  # why there is no mean return
OUR_GROUPS = ("Train/", "Perf/", "Loss/", "Policy/", "Async/", "Eval/")


@dataclass
class IterationView:
    """One iteration, as it is shown.

    Attributes:
        iteration: Done so far.
        total: To be done.
        env_steps: Done so far.
        metrics: By tag.
        eta_s: What is left [s].
        learned: Which metrics of the algorithm have a place in the table; six fit.
        lags: Acting may lag behind learning: max_policy_lag is above 0.
    """

    iteration: int
    total: int
    env_steps: int
    metrics: dict[str, float]
    eta_s: float
    learned: Sequence[Metric] = ()
    lags: bool = True


class RunConsole:
    """Prints messages, and shows iterations in the mode that was asked for."""

    def __init__(self, mode: str, rank: int = 0) -> None:
        """Choose how to show iterations.

        Args:
            mode: `logging.console`: auto, table, plain or quiet.
            rank: Of this process; only the first one shows anything.
        """
        self._unsaid: list[str] | None = [] if rank else None
        mode = "quiet" if rank else mode
        self._console = _Console(highlight=False, soft_wrap=True, markup=False)
        if mode == "auto":  # rich draws into files too where FORCE_COLOR is set
            can_draw = self._console.is_terminal and not self._console.is_dumb_terminal
            mode = "table" if can_draw and sys.stdout.isatty() else "plain"
        self._mode = mode
        self._live: Live | None = None
        self._start: StartProgress | None = None
        self._title = ""
        self._activities: Sequence[Activity] = ()
        self._undrawn: IterationView | None = None
        self._drawn = -MIN_REDRAW_S

    def say(self, *lines: str) -> None:
        """Print lines, above the live table."""
        if self._mode != "quiet":
            for line in lines:
                self._write(partial(self._console.print, line))

    def say_notes(self, *parts: list[str]) -> None:
        """Print the notes of each part, and take them from it."""
        for notes in parts:
            self.say(*notes)
            notes.clear()

    def unsaid(self) -> list[str]:
        """Return, once, the warnings that are another rank's to print."""
        lines, self._unsaid = self._unsaid or [], self._unsaid and []
        return lines

    def __enter__(self) -> "RunConsole":
        """Nothing to do."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the last table standing."""
        self.close()

    def warn(self, line: str) -> None:
        """Print one line in every mode: above the live table, else on stderr."""
        if self._unsaid is not None:
            self._unsaid.append(line)
        elif self._live is not None:
            self._write(lambda: self._console.print(line, style="yellow"))
        else:
            say_error(line)

    def starting(self, activities: Sequence[Activity], shared: bool) -> bool:
        """Begin showing what the workers do until `start` or `close`.

        Args:
            activities: Of each worker, or of this process.
            shared: An env in this process prints on the terminal as well: no live table.

        Returns:
            Whether there is a live table.
        """
        self._activities = activities
        if self._mode == "table" and not shared:
            self._open_live(transient=True)
            self._start = StartProgress(activities, self._draw_start, REFRESH_S)
        elif self._mode != "quiet":
            out = terminal()
            self._start = StartProgress(
                activities,
                lambda start: self._write(lambda: print(start.line(), file=out, flush=True)),
                LINE_EVERY_S,
            )
        return self._live is not None

    def start(self, title: str) -> bool:
        """Begin showing iterations; returns whether in a live table."""
        self.close()
        self._title = title
        if self._mode == "table":
            self._open_live(transient=False)
        elif pids := self._pids():
            self.say(pids)
        return self._live is not None

    def show(self, view: IterationView) -> None:
        """Show one iteration."""
        if self._live is not None:
            self._undrawn = view
            if time.monotonic() - self._drawn >= MIN_REDRAW_S:
                self._draw_iteration()
        elif self._mode == "plain":
            has_workers = self._has_workers
            self._write(lambda: print(_line(view, has_workers), flush=True))

    def close(self) -> None:
        """End the progress of the start; leave the last table standing."""
        start, self._start = self._start, None
        if start is not None:
            start.stop()
        self._draw_iteration()
        live, self._live = self._live, None
        if live is not None:
            self._write(live.stop)

    @property
    def _has_workers(self) -> bool:
        return any(activity.pid is not None for activity in self._activities)

    def _pids(self) -> str:
        """Name the processes, for whoever wants to look at one; empty where this is the only one.

        A replaced worker has another pid than before.
        """
        pids = [str(activity.pid) for activity in self._activities if activity.pid is not None]
        more = f", ... ({len(pids)})" if len(pids) > MAX_PIDS else ""
        if not pids:
            return ""
        return f"pids: learner {os.getpid()}, workers {', '.join(pids[:MAX_PIDS])}{more}"

    def _open_live(self, transient: bool) -> None:
        live = Live(console=self._console, auto_refresh=False, transient=transient)
        self._live, self._drawn = live, -MIN_REDRAW_S
        self._write(live.start)

    def _draw_iteration(self) -> None:
        view, self._undrawn = self._undrawn, None
        if view is not None:
            self._draw(self._table(view))

    def _draw_start(self, start: StartProgress) -> None:
        self._draw(start.table())

    def _draw(self, table: Table) -> None:
        if (live := self._live) is not None:
            self._write(lambda: live.update(table, refresh=True))
            self._drawn = time.monotonic()

    def _write(self, write: Callable[[], None]) -> None:
        """Write; if nobody reads any more (`| head`, a closed terminal) the run goes on without."""
        try:
            write()
            sys.stdout.flush()
        except OSError:
            self._mode, self._live = "quiet", None
            self._console.quiet = True
            drop(sys.stdout)

    def _table(self, view: IterationView) -> Table:
        width = self._console.width
        columns = _columns(view, self._has_workers)
        if width < TWO_PAIRS:
            columns = [[cell for column in columns for cell in column]]
        elif width >= THREE_PAIRS:
            columns.append(_more_cells(view.metrics))
        table = Table(title=self._title, title_justify="left", show_header=False)
        table.caption, table.caption_justify = self._pids() or None, "left"
        for pair in range(len(columns)):
            table.add_column(style="cyan", no_wrap=True, min_width=14 if pair < 2 else NAME_WIDTH)
            table.add_column(justify="right", no_wrap=True, min_width=17 if pair < 2 else 10)
        for cells in zip_longest(*columns, fillvalue=("", "")):
            table.add_row(*(text for cell in cells for text in cell))
        return table


class _Console(Console):
    """rich ends the program when its reader is gone; a training should not end with its display."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _columns(view: IterationView, has_workers: bool) -> list[list[tuple[str, str]]]:
    """Return what every width shows, in two columns; rows that would say nothing are left out."""
    m = view.metrics
    share = view.iteration / view.total
    if "Train/mean_reward" in m:
        returned = ("mean return", as_number(m["Train/mean_reward"]))
        length = ("mean length", as_number(m["Train/mean_episode_length"]))
    else:
        returned, length = ("reward/step", _per_step(m)), ("mean return", "no whole episode")
    learned = [(s.label, format(m[s.tag], s.format)) for s in view.learned]
    left = [
        ("iteration", f"{view.iteration}/{view.total} ({share:.0%})"),
        ("env steps", f"{view.env_steps:,}"),
        returned,
        *learned[: LEARNED // 2],
    ]
    right = [
        ("time left", as_duration(view.eta_s)),
        ("steps/s", f"{m['Perf/total_fps']:,.0f}"),
        length,
        *learned[LEARNED // 2 : LEARNED],
    ]
    if view.lags:
        left.append(("policy lag", f"{m['Async/policy_lag']:.2f}"))
    if restarts := m["Async/worker_restarts"]:
        right.append(("restarts", f"{restarts:.0f}"))
    left.append(("learner waits", as_share(m["Async/learner_idle_s"], m["Perf/iteration_time"])))
    if has_workers:
        waits = as_share(m["Async/workers_wait_s"], m["Perf/iteration_time"])
        right.append(("workers wait", waits))
    return [left, right]


def _more_cells(metrics: dict[str, float]) -> list[tuple[str, str]]:
    """Return a column for wide terminals: what the task logs, then more of the update."""
    task = [
        (tag.rsplit("/", 1)[-1], value)
        for tag, value in metrics.items()
        if not tag.startswith(OUR_GROUPS)
    ]
    more = [(name, metrics[tag]) for name, tag in MORE.items() if metrics.get(tag)]
    return [(name[:NAME_WIDTH], f"{value:.4g}") for name, value in [*task, *more][:ROWS]]


def _line(view: IterationView, has_workers: bool) -> str:
    m = view.metrics
    restarts = m["Async/worker_restarts"]
    if "Train/mean_reward" in m:
        returned = f"return {as_number(m['Train/mean_reward'])}"
        returned += f" | length {as_number(m['Train/mean_episode_length'])}"
    else:
        returned = f"reward/step {_per_step(m)} ({NO_EPISODE})"
    workers_wait = as_share(m["Async/workers_wait_s"], m["Perf/iteration_time"])
    return (
        f"iteration {view.iteration}/{view.total}"
        f" | {returned}"
        f" | {m['Perf/total_fps']:,.0f} steps/s"
        + (f" | lag {m['Async/policy_lag']:.2f}" if view.lags else "")
        + f" | learner waits {as_share(m['Async/learner_idle_s'], m['Perf/iteration_time'])}"
        + (f" | workers wait {workers_wait}" if has_workers else "")
        + (f" | restarts {restarts:.0f}" if restarts else "")
        + f" | ETA {as_duration(view.eta_s)}"
    )


def _per_step(metrics: dict[str, float]) -> str:
    """Return the mean reward of a step; a dash where every env of the iteration was left out."""
    value = metrics.get("Train/reward_per_step")
    return "-" if value is None else f"{value:.4g}"


def as_number(value: float | None) -> str:
    """Return a number in words; a dash where there is none."""
    return "-" if value is None else f"{value:,.2f}"


def as_share(part_s: float, whole_s: float) -> str:
    """Return how much of a time [s] a part of it is, in percent."""
    return f"{min(1.0, part_s / whole_s):.0%}" if whole_s else "-"
