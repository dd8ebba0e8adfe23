"""The processes of the other ranks, where `experiment.devices` has us start them.

Runs in the first rank's main thread; `become_rank` in the others, before anything else.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any

from isaac_hydra_ext.config.placement import available_cores
from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.system.parent_death import die_with_parent
from isaac_hydra_ext.workers.spawning import LocalProcess, spawn

LEAVE_S = 60.0  # for ranks to end by themselves, once the first has: they close their envs
GRACE_S = 5.0  # between SIGTERM and SIGKILL
POLL_S = 0.1


class RankProcesses:
    """The ranks 1 .. R - 1."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._processes: list[LocalProcess] = []
        self._leave_s = LEAVE_S

    def start(self, seat: Seat, port: int, main: Callable[..., None], *arguments: Any) -> None:
        """Start one process a rank.

        Args:
            seat: Of the first rank.
            port: Of the ranks' store.
            main: What they run, given a pipe, our process's id, and the arguments.
            arguments: Pickled into them.
        """
        for rank in range(1, seat.size):
            variables = seat.variables(rank, port)
            given = (os.getpid(), *arguments)
            process, pipe = spawn(main, given, f"appo-rank-{rank}", variables)
            pipe.close()
            self._processes.append(process)

    def how_ended(self, rank: int) -> str:
        """Return how a rank that was started here has ended, `was killed by SIGKILL`; else ""."""
        if not 0 < rank <= len(self._processes):
            return ""
        process = self._processes[rank - 1]
        return process.describe_exit() if process.ended else ""

    def hurry_if(self, gone: Callable[[], bool]) -> None:
        """Have `close` wait no longer than the others need, if one of them has gone."""
        if gone():
            self._leave_s = GRACE_S

    def close(self, at_once: Callable[[], bool]) -> None:
        """Wait for all to end; then end them, within a bounded time.

        Args:
            at_once: Whether the user will wait no longer.
        """
        self._wait(self._leave_s, at_once)
        for process in self._processes:
            if not process.ended:
                process.terminate()
        self._wait(GRACE_S, lambda: False)
        for process in self._processes:
            process.kill()
            process.close()

    def _wait(self, limit_s: float, at_once: Callable[[], bool]) -> None:
        deadline = time.monotonic() + limit_s
        alive = [process.sentinel for process in self._processes]
        while alive and not at_once() and time.monotonic() < deadline:
            ended = connection.wait(alive, POLL_S)
            alive = [sentinel for sentinel in alive if sentinel not in ended]


def become_rank(parent_pid: int) -> None:
    """Stop when the first rank dies, lead a process group, and be allowed workers of one's own."""
    die_with_parent(signal.SIGTERM)  # to be heard as a stop: the last iteration is then saved
    if os.getppid() != parent_pid:
        os._exit(1)
    os.setpgid(0, 0)
    multiprocessing.current_process().daemon = False


@contextlib.contextmanager
def own_cores(seat: Seat) -> Iterator[None]:
    """Keep a rank, and the workers that it starts, to its share of this machine's cores.

    With fewer cores than ranks, or where no process can be kept to some (macOS), nothing is done.
    """
    share = available_cores() // seat.local_size
    if seat.size == 1 or not share or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    first = seat.local_rank * share
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setaffinity(0, sorted(before)[first : first + share])
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)
