"""A thread for updates, beside a simulation in the same process (W = 0, L >= 1).

Not `concurrent.futures`: its threads are joined when the program ends, so an update that hangs
would keep it alive for ever.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch

from isaac_hydra_ext.errors import LearnerError

UPDATE_TIMEOUT_S = 3600.0  # of one update; many times what any takes
THREAD = "update"  # its name
T = TypeVar("T")


class BackgroundThread(Generic[T]):
    """One daemon thread that runs tasks in turn."""

    def __init__(self) -> None:
        """Start it, with as many torch threads as the caller has: they are set per thread."""
        self._tasks: SimpleQueue[tuple[Callable[[], T], Future[T]] | None] = SimpleQueue()
        num_threads = torch.get_num_threads()
        threading.Thread(target=self._run, args=(num_threads,), name=THREAD, daemon=True).start()

    def submit(self, task: Callable[[], T]) -> "Future[T]":
        """Run a task after those before it."""
        future: Future[T] = Future()
        self._tasks.put((task, future))
        return future

    def stop(self) -> None:
        """End it after the tasks that it has; nobody waits for that."""
        self._tasks.put(None)

    def _run(self, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        while (order := self._tasks.get()) is not None:
            task, future = order
            try:
                future.set_result(task())
            except BaseException as e:  # whoever waits for the result is told
                future.set_exception(e)


def is_running() -> bool:
    """Return whether a thread of this kind has not come to its end."""
    return any(thread.name == THREAD for thread in threading.enumerate())


def result_of(update: Future[T], iteration: int) -> T:
    """Wait for an update.

    Raises:
        LearnerError: There is no end to it.
    """
    try:
        return update.result(timeout=UPDATE_TIMEOUT_S)
    except FutureTimeoutError as e:
        raise LearnerError(f"iteration {iteration}: no update after {UPDATE_TIMEOUT_S:g} s") from e
