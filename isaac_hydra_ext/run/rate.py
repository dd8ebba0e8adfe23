"""Env steps per second, of iterations that are like the rest.

Runs in the learner's main thread.
"""

from collections import deque

WINDOW = 10  # steady iterations that a rate is over


class SteadyRate:
    """The rate of a run's recent steady iterations.

    Not steady are the first iteration of a process, which compiles, the L after it, whose rollouts
    were collected meanwhile, and the last L of a run, beside which nothing is collected.
    """

    def __init__(self, first: int, last: int, lag: int) -> None:
        """Begin without a steady iteration.

        Args:
            first: The first iteration of this process.
            last: The run ends before this one.
            lag: L, `rollout.max_policy_lag`.
        """
        self._steady = range(first + 1 + lag, last - lag)
        self._recent: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._samples, self._seconds = 0, 0.0

    def is_steady(self, iteration: int) -> bool:
        """Return whether an iteration is like the rest."""
        return iteration in self._steady

    def add(self, iteration: int, samples: int, seconds: float) -> float:
        """Count an iteration; returns the rate now [env steps/s].

        Until there has been a steady iteration it is that of all iterations so far.
        """
        self._samples += samples
        self._seconds += seconds
        if self.is_steady(iteration):
            self._recent.append((samples, seconds))
        if not self._recent:
            return self._samples / self._seconds
        return sum(n for n, _ in self._recent) / sum(s for _, s in self._recent)
