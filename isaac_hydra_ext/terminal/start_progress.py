"""What the terminal shows while a run starts, which takes minutes with Kit.

Runs in a thread of the learner's process, as its main thread may be building the env (W = 0).
"""

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from rich.table import Table

from isaac_hydra_ext.system.activity import Activity
from isaac_hydra_ext.terminal.clock import as_duration

REFRESH_S = 0.25
LINE_EVERY_S = 30.0
READY = "ready"


class StartProgress:
    """Calls `show` with what the workers do, periodically, until it is stopped."""

    def __init__(
        self,
        activities: Sequence[Activity],
        show: Callable[["StartProgress"], None],
        every_s: float,
    ) -> None:
        """Start the thread.

        Args:
            activities: Of the workers; changed by others meanwhile.
            show: Called in the thread.
            every_s: Between two calls, the first one included [s].
        """
        self._activities, self._show, self._every_s = activities, show, every_s
        self._begun = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="start-progress")
        self._thread.start()

    def stop(self) -> None:
        """End the thread; nothing is shown after this."""
        self._stopped.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._show(self)

    def rows(self) -> list[tuple[str, str, float]]:
        """Return who does what and for how long [s]; workers that do the same are one row."""
        now = time.monotonic()
        groups: dict[str, list[tuple[int, float]]] = {}
        for index, activity in enumerate(self._activities):
            what, since = activity.now
            groups.setdefault(what, []).append((index, since))
        return [
            (_who(self._activities, [i for i, _ in group]), what, now - min(s for _, s in group))
            for what, group in groups.items()
        ]

    def table(self) -> Table:
        """Return it as a table of at most 80 columns."""
        table = Table(show_header=False, title=f"starting {self._elapsed()}", title_justify="left")
        table.add_column(style="cyan", no_wrap=True, max_width=24)
        table.add_column(no_wrap=True, max_width=38)
        table.add_column(justify="right", no_wrap=True)
        for who, what, seconds in self.rows():
            table.add_row(who, what, "" if what == READY else as_duration(seconds))
        return table

    def line(self) -> str:
        """Return it as one line."""
        parts = [
            f"{who}: {what}" + ("" if what == READY else f" ({as_duration(seconds)})")
            for who, what, seconds in self.rows()
        ]
        return f"starting {self._elapsed()} | " + " | ".join(parts)

    def _elapsed(self) -> str:
        return as_duration(time.monotonic() - self._begun)


def _who(activities: Sequence[Activity], indices: Sequence[int]) -> str:
    """Name workers: `worker 0`, `workers 1-3`, `workers 0, 2-3`."""
    if len(indices) == 1:
        only = activities[indices[0]]
        return only.who if only.pid is None else f"{only.who} (pid {only.pid})"
    spans: list[list[int]] = []
    for index in indices:
        if spans and spans[-1][-1] == index - 1:
            spans[-1] = [spans[-1][0], index]
        else:
            spans.append([index])
    return "workers " + ", ".join("-".join(map(str, span)) for span in spans)


def terminal() -> io.TextIOBase:
    """Return a stdout of its own, which an env that redirects this process's does not take away."""
    with contextlib.suppress(OSError, ValueError):
        return os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, errors="backslashreplace")
    return sys.stdout  # type: ignore[return-value]  # one without a file, in tests and notebooks
