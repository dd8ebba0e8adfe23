"""How long things take: the time left of a run. Used in the learner's process."""

import time
from bisect import bisect_right
from collections.abc import Callable
from datetime import timedelta
from math import inf

MAX_MARKS = 1000


def as_duration(seconds: float) -> str:
    """Return `0:01:30`."""
    return str(timedelta(seconds=round(seconds)))


class Clock:
    """Estimates the time left from what iterations and saves have taken so far.

    An iteration's time is from the end of the one before to its own, with all that is done in
    between, but without saves, which come at known iterations. The first one, in which everything
    is compiled and cached, is none to go by; of all, the newer three quarters are.
    """

    def __init__(
        self, first: int, last: int, save_every: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the clock.

        Args:
            first: Iterations done before.
            last: The run ends after this many.
            save_every: Iterations between two saves; the last is saved too.
            now: Returns the time [s].
        """
        self._done, self._last, self._save_every = first, last, save_every
        self._now, self._mark = now, now()
        self._first, self._taken_s = first, 0.0
        self._marks, self._stride = [(0, 0.0)], 1  # iterations of this process, and their time
        self._save_s, self._saves = 0.0, 0

    def iteration_done(self) -> float:
        """Note the end of an iteration, before it is saved; returns the seconds left."""
        self._taken_s += self._lap()
        self._done += 1
        count = self._done - self._first
        oldest = max(1, count // 4) if count > 1 else 0
        begin, before = self._marks[bisect_right(self._marks, (oldest, inf)) - 1]
        iteration_s = (self._taken_s - before) / (count - begin)
        if count % self._stride == 0:
            self._marks.append((count, self._taken_s))
        if len(self._marks) > MAX_MARKS:  # a day has a million iterations
            self._marks, self._stride = self._marks[::2], 2 * self._stride
        saves = self._saves_until(self._last) - self._saves_until(self._done - 1)
        save_s = self._save_s / self._saves if self._saves else 0.0
        return iteration_s * (self._last - self._done) + save_s * saves

    def save_done(self) -> None:
        """Note the end of a save."""
        self._save_s += self._lap()
        self._saves += 1

    def _lap(self) -> float:
        before, self._mark = self._mark, self._now()
        return self._mark - before

    def _saves_until(self, iteration: int) -> int:
        """Count planned saves up to and with `iteration`."""
        ends = iteration == self._last and iteration % self._save_every != 0
        return iteration // self._save_every + ends
