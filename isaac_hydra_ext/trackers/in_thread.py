"""A tracker with a service behind it, in a daemon thread of its own, beside the learner's main one.

A service that hangs then holds up nobody, and its library cannot take the signals, which belong to
the run: Python gives them to the main thread alone.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

from isaac_hydra_ext.system.background import BackgroundThread
from isaac_hydra_ext.trackers.tracker import Tracker

OPEN_LIMIT_S = 120.0
VIDEO_LIMIT_S = 30.0
CLOSE_LIMIT_S = 60.0  # of uploading what is left
POLL_S = 0.1  # how soon an impatient user is heard
MAX_PENDING = 10_000  # calls that nobody answers


class TrackerInThread:
    """Has a tracker's methods. They return at once; an error is raised by a later call."""

    def __init__(self, make: Callable[[], Tracker], hurry: Callable[[], bool]) -> None:
        """Open the tracker.

        Args:
            make: Opens it, in the thread.
            hurry: Whether the user will wait no longer for an upload.

        Raises:
            TimeoutError: It does not open.
            Exception: What `make` raises.
        """
        self._hurry = hurry
        self._thread: BackgroundThread[object] = BackgroundThread()
        self._pending: deque[Future[object]] = deque()
        opening: Future[Tracker] = Future()
        self._call(lambda: opening.set_result(make()))
        self._wait(OPEN_LIMIT_S, "no answer")
        self._tracker = opening.result(timeout=0)
        self.run_id, self.afterwards = self._tracker.run_id, self._tracker.afterwards

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        self._call(lambda: self._tracker.log(metrics, iteration))

    def log_video(self, tag: str, path: Path, iteration: int) -> None:
        """Wait for it: a video that fails must not end the tracker."""
        self._call(lambda: self._tracker.log_video(tag, path, iteration))
        self._wait(VIDEO_LIMIT_S, "no answer")

    def flush(self) -> None:
        """Nothing to do: services write as points come."""
        self._raise_failed()

    def close(self) -> None:
        """Wait for the upload.

        Raises:
            TimeoutError: It takes too long, or the user is in a hurry.
        """
        self._call(self._tracker.close)
        self._thread.stop()
        self._wait(CLOSE_LIMIT_S, "not all points are uploaded; its own sync command does that")

    def _call(self, task: Callable[[], object]) -> None:
        self._raise_failed()
        if len(self._pending) > MAX_PENDING:
            raise TimeoutError("answers no more")
        self._pending.append(self._thread.submit(task))

    def _raise_failed(self) -> None:
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()

    def _wait(self, limit_s: float, otherwise: str) -> None:
        """Wait until all calls are answered."""
        deadline = time.monotonic() + limit_s
        while self._pending:
            answered, _ = wait([self._pending[0]], timeout=POLL_S)
            if answered:
                self._pending.popleft().result()
            elif self._hurry() or time.monotonic() > deadline:
                raise TimeoutError(otherwise)
