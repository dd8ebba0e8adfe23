"""What each process is at while a run starts: told where it happens, shown by the console.

`tell` is called in the process that builds the env; what it says is kept in an `Activity` in the
learner's process, which a worker's message updates.
"""

import time
from collections.abc import Callable


class Activity:
    """What one worker is doing, and since when.

    Attributes:
        who: Its name.
        pid: Of the process that has its place now; None before there is one, and for this one.
    """

    def __init__(self, who: str) -> None:
        """Begin with the start of its process."""
        self.who = who
        self.pid: int | None = None
        self.begin("starts Python")

    def begin(self, what: str) -> None:
        """Note that it does something else now."""
        self._now = (what, time.monotonic())  # one object, as another thread reads it

    @property
    def now(self) -> tuple[str, float]:
        """What it does, and `time.monotonic()` of its begin."""
        return self._now


def _nobody(what: str) -> None:
    """Commands without a console build envs too."""


_listener: Callable[[str], None] = _nobody


def listen(listener: Callable[[str], None]) -> None:
    """Have what this process tells from now on told to `listener`."""
    global _listener
    _listener = listener


def tell(what: str) -> None:
    """Say what this process is about to do, if it may take seconds or minutes."""
    _listener(what)
