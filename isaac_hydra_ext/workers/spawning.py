"""Starting and killing the learner's processes. Runs in the learner's main thread.

The main thread, because a child's parent-death signal fires when the *thread* that spawned it
ends. Always `spawn`: a forked child would inherit CUDA, locks and a half-started simulator.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from isaac_hydra_ext.config.placement import thread_caps
from isaac_hydra_ext.system.stop_signals import signal_name
from isaac_hydra_ext.workers.shared_memory import SharedBlock
from isaac_hydra_ext.workers.worker import worker_main

JOIN_S = 5.0
PACKAGE, COMMAND = "isaac_hydra_ext", "appo"  # the latter's script is in the environment's bin/


def spawn_worker(
    block: SharedBlock, worker: int, generation: int, environment: Mapping[str, str]
) -> tuple[SpawnProcess, Connection]:
    """Start one worker; returns its process and the learner's end of its pipe."""
    arguments = (block, worker, generation, os.getpid())
    return spawn(worker_main, arguments, f"appo-worker-{worker}", environment)


def spawn(
    main: Callable[..., None],
    arguments: tuple[Any, ...],
    name: str,
    environment: Mapping[str, str] | None = None,
) -> tuple[SpawnProcess, Connection]:
    """Start a process of `main(pipe, *arguments)`, with one thread a library.

    Args:
        main: A function of a module that the process imports.
        arguments: Pickled into the process.
        name: Of the process.
        environment: Variables that it has instead of ours.

    Returns:
        The process and our end of its pipe.
    """
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # else `start` does it, and lets SIGINT through again
    ours, theirs = context.Pipe(duplex=True)
    process = context.Process(target=main, args=(theirs, *arguments), name=name, daemon=True)
    variables = _environment({**thread_caps(), **(environment or {})})
    with variables, _blocked(signal.SIGINT), _light_main():
        process.start()
    theirs.close()  # so that the process's death closes the pipe
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
def _light_main() -> Iterator[None]:
    """Have what is started meanwhile not run our own main module again.

    A spawned process runs its parent's, as that may register envs; ours would import the learner
    and the command line, and registers nothing.
    """
    main = sys.modules["__main__"]
    if _is_ours(main):
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _is_ours(main: ModuleType) -> bool:
    """Return whether a main module is one of this package, or the script of its command."""
    if (spec := getattr(main, "__spec__", None)) is not None:
        return spec.name.split(".")[0] == PACKAGE
    called = getattr(getattr(main, "main", None), "__module__", "")
    named = Path(getattr(main, "__file__", None) or "").name
    return (named, called) == (COMMAND, f"{PACKAGE}.cli.main")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put them back as they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def kill_group(process: SpawnProcess) -> None:
    """Kill a worker and whatever it has started, and reap it."""
    assert process.pid is not None
    # The group is the worker's own once it runs; before that (or after its end) there is none.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    _reap(process)


def describe_exit(process: SpawnProcess) -> str:
    """Return how a process ended, e.g. `was killed by SIGKILL`."""
    _reap(process)
    code = process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal_name(-code)}"
    return f"exited with code {code}"


def _reap(process: SpawnProcess) -> None:
    """Wait for a process that ends, and reap it.

    `join` with a time limit would wait for a pipe that the process's forked helpers keep open.
    """
    deadline = time.monotonic() + JOIN_S
    while process.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if process.exitcode is not None:
        process.join()  # returns at once, and has multiprocessing forget it
