"""Where a worker's process begins; whoever starts it needs no torch. Runs in the worker."""

import signal
from multiprocessing.connection import Connection

from isaac_hydra_ext.system.garbage import garbage_uncollected
from isaac_hydra_ext.system.parent_death import die_with_parent
from isaac_hydra_ext.workers.shared_memory import SharedBlock


def worker_entry(
    pipe: Connection, block: SharedBlock, worker: int, generation: int, parent_pid: int
) -> None:
    """Import what a worker is, and be one; arguments as of `worker_main`."""
    die_with_parent(signal.SIGKILL)  # also while torch is imported, which takes seconds
    with garbage_uncollected():
        from isaac_hydra_ext.workers.worker import worker_main

    worker_main(pipe, block, worker, generation, parent_pid)
