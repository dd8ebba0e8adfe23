"""Ending all workers within a bounded time, however unwilling. Runs in the learner's main thread.

CLOSE, then SIGTERM, then SIGKILL to each worker's whole process group, with a grace period between
them. All workers are waited for together, so that W of them take no longer than one.
"""

import time
from collections.abc import Callable, Sequence
from multiprocessing import connection

from isaac_hydra_ext.workers.channel import Kind
from isaac_hydra_ext.workers.handle import Phase, WorkerHandle

POLL_S = 0.1  # how soon an impatient user is heard


def end_processes(
    workers: Sequence[WorkerHandle], grace_s: float, at_once: Callable[[], bool]
) -> None:
    """End and reap all workers and whatever they have started.

    Args:
        workers: In any phase; those without an env have nothing to close and are killed.
        grace_s: Between CLOSE and SIGTERM, and between SIGTERM and SIGKILL [s].
        at_once: Whether the user will wait no longer.
    """
    building = [w for w in workers if w.phase is not Phase.COLLECTING]
    with_env = [w for w in workers if w.phase is Phase.COLLECTING]
    for worker in building:
        worker.process.kill()
    for worker in with_env:
        worker.say(Kind.CLOSE)
    _wait(with_env, grace_s, at_once)
    for worker in with_env:
        if not worker.ended:
            worker.process.terminate()
    _wait(with_env, grace_s, at_once)
    for worker in with_env:
        worker.process.kill()


def not_closed(worker: WorkerHandle) -> str:
    """Return the line about a worker that has not said CLOSED.

    An exit code proves nothing: a simulator may end its process with 0 whatever has happened.
    """
    return f"worker {worker.index} did not close its env: it {worker.process.describe_exit()}"


def _wait(workers: Sequence[WorkerHandle], grace_s: float, at_once: Callable[[], bool]) -> None:
    """Wait until all processes have ended, at most `grace_s` seconds."""
    deadline = time.monotonic() + grace_s
    alive = list({w.sentinel for w in workers})  # remote ones share one
    while alive and not at_once() and (left := deadline - time.monotonic()) > 0:
        ended = connection.wait(alive, min(left, POLL_S))
        alive = [sentinel for sentinel in alive if sentinel not in ended]
