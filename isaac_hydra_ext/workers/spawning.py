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
from functools import cached_property
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from isaac_hydra_ext.config.placement import thread_caps
from isaac_hydra_ext.system.stop_signals import signal_name

JOIN_S = 5.0
RAYS_MAIN = ("ray", "_private", "workers", "default_worker.py")
PACKAGE, COMMAND = "isaac_hydra_ext", "appo"  # the latter's script is in the environment's bin/


def spawn(
    main: Callable[..., None],
    arguments: tuple[Any, ...],
    name: str,
    environment: Mapping[str, str] | None = None,
) -> tuple["LocalProcess", Connection]:
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
    return LocalProcess(process), ours


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
    """Return whether a main module is one of this package, its command's script, or Ray's."""
    if (spec := getattr(main, "__spec__", None)) is not None:
        return spec.name.split(".")[0] == PACKAGE
    called = getattr(getattr(main, "main", None), "__module__", "")
    path = Path(getattr(main, "__file__", None) or "")
    if path.parts[-4:] == RAYS_MAIN:
        return True  # the host of a remote worker
    return (path.name, called) == (COMMAND, f"{PACKAGE}.cli.main")


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


class LocalProcess:
    """A process of this machine that leads a group of its own, once it runs."""

    def __init__(self, process: SpawnProcess) -> None:
        """Watch over one that has been started."""
        assert process.pid is not None
        self._process, self.pid = process, process.pid

    @cached_property
    def _pidfd(self) -> int | None:
        if hasattr(os, "pidfd_open"):  # Linux
            with contextlib.suppress(OSError):  # not in every sandbox
                return os.pidfd_open(self.pid)
        return None

    @property
    def sentinel(self) -> int:
        """What can be waited for with `connection.wait`: the end of the process.

        The process's own is a pipe, which helpers that it has forked keep open.
        """
        return self._process.sentinel if self._pidfd is None else self._pidfd

    @property
    def ended(self) -> bool:
        """Whether the process is over, without reaping it."""
        return bool(connection.wait([self.sentinel], 0))

    def terminate(self) -> None:
        """Ask the process to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill the process and whatever it has started, and reap it."""
        # The group is its own once it runs; before that (or after its end) there is none.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._reap()

    def describe_exit(self) -> str:
        """Return how the process ended, e.g. `was killed by SIGKILL`."""
        self._reap()
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal_name(-code)}"
        return f"exited with code {code}"

    def close(self) -> None:
        """Let go of a process that has ended."""
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)

    def _reap(self) -> None:
        """Wait for a process that ends, and reap it.

        `join` with a time limit would wait for a pipe that its forked helpers keep open.
        """
        deadline = time.monotonic() + JOIN_S
        while self._process.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if self._process.exitcode is not None:
            self._process.join()  # returns at once, and has multiprocessing forget it
