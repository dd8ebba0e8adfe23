"""Starting and killing worker processes. Runs in the learner's main thread.

The main thread, because a child's parent-death signal fires when the *thread* that spawned it
ends. Always `spawn`: a forked child would inherit CUDA, locks and a half-started simulator.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from isaac_hydra_ext.rollout.shared_memory import SharedBlock
from isaac_hydra_ext.rollout.worker import worker_main

# Libraries read these once, while they load: they must be set around the start of the process.
THREAD_CAPS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "PXR_WORK_THREAD_LIMIT",
)
JOIN_S = 5.0


def spawn_worker(
    block: SharedBlock, worker: int, generation: int
) -> tuple[SpawnProcess, Connection]:
    """Start one worker; returns its process and the learner's end of its pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(
        target=worker_main,
        args=(theirs, block, worker, generation, os.getpid()),
        name=f"appo-worker-{worker}",
        daemon=True,
    )
    with _environment({name: "1" for name in THREAD_CAPS}), _blocked(signal.SIGINT):
        process.start()
    theirs.close()  # so that the worker's death closes the pipe
    return process, ours


@contextlib.contextmanager
def _blocked(signum: signal.Signals) -> Iterator[None]:
    """Block a signal here; what is started meanwhile keeps it blocked for good.

    A terminal's Ctrl-C reaches workers that have not left its process group yet.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, unless the user has, and put them back."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def kill_group(process: SpawnProcess) -> None:
    """Kill a worker and whatever it has started, and reap it."""
    assert process.pid is not None
    # The group is the worker's own once it runs; before that (or after its end) there is none.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(JOIN_S)


def describe_exit(process: SpawnProcess) -> str:
    """Return how a process ended, e.g. `was killed by SIGKILL`."""
    process.join(JOIN_S)
    code = process.exitcode
    if code is not None and code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"was killed by {names.get(-code, f'signal {-code}')}"
    return f"exited with code {code}"
