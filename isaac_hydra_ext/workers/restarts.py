"""How often a process that failed may be replaced. Runs in the learner's process."""

import time

from isaac_hydra_ext.errors import WorkerError

HOUR_S = 3600.0


class RestartBudget:
    """At most so many replacements per hour, and what each was needed for."""

    def __init__(self, budget: int) -> None:
        """Begin with the whole budget."""
        self._budget = budget
        self._spent: list[tuple[float, str]] = []

    @property
    def is_used_up(self) -> bool:
        """Whether this hour's replacements have been made."""
        now = time.monotonic()
        self._spent = [(t, why) for t, why in self._spent if now - t < HOUR_S]
        return len(self._spent) >= self._budget

    def spend(self, failure: str) -> str:
        """Take one replacement.

        Returns:
            How many of the hour's budget are used, in words.

        Raises:
            WorkerError: The budget is used up; names each failure of that hour.
        """
        if self.is_used_up:
            failures = "; ".join([*(why for _, why in self._spent), failure])
            raise WorkerError(
                f"rollout.max_restarts={self._budget} replacements per hour are used up: {failures}"
            )
        self._spent.append((time.monotonic(), failure))
        return f"{len(self._spent)} of at most {self._budget} per hour"
