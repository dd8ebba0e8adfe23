"""How long the parts of a loop take. Used in the learner's main thread."""

import time
from collections.abc import Callable


class Laps:
    """The times of one turn of a loop, by name [s]."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin the first turn."""
        self._now, self._turn_began = now, now()
        self._mark, self._taken = self._turn_began, {}

    def start(self) -> None:
        """Begin a part: what was done since the last one belongs to none."""
        self._mark = self._now()

    def end(self, name: str) -> None:
        """End the part that was begun last, and begin another."""
        mark = self._mark
        self.start()
        self._taken[name] = self._mark - mark

    def turn(self, name: str) -> dict[str, float]:
        """End the turn; returns the times of its parts, and of all of it, pauses included."""
        began, self._turn_began = self._turn_began, self._now()
        taken, self._taken = self._taken, {}
        return {**taken, name: self._turn_began - began}
