"""What Isaac Lab does to the process that hosts it: kept apart, put back, and limited in time.

Runs in the process that hosts the simulation (a worker, or the learner's with W = 0).
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from isaac_hydra_ext.errors import (
    ConfigError,
    EnvError,
    IsaacHydraExtError,
    MissingDependencyError,
    RunInterrupted,
)
from isaac_hydra_ext.system.activity import tell

KEPT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV)
_kept_in: Path | None = None  # the file that has what Isaac Lab prints, while it is kept


def is_output_kept() -> bool:
    """Return whether what Isaac Lab prints goes to a file now."""
    return _kept_in is not None


@contextlib.contextmanager
def output_kept(said: list[str]) -> Iterator[None]:
    """Keep what Isaac Lab prints, native code's included, off the terminal.

    There is no run directory yet, so it goes to a file among the system's temporary ones. The file
    stays where starting failed, or ended the process: nothing else says why.

    Args:
        said: Gets the output at the end, however the block ends.

    Raises:
        EnvError: What failed in the block and the file; the user's errors pass as they are.
    """
    global _kept_in
    descriptor, name = tempfile.mkstemp(prefix="isaac_lab_", suffix=".log")
    _kept_in, stays = Path(name), False
    try:
        with _printing_to(descriptor):
            yield
    except (ConfigError, MissingDependencyError, RunInterrupted):
        raise
    except Exception as e:
        stays = True
        with _kept_in.open("a") as kept:
            traceback.print_exception(e, file=kept)
        ours = isinstance(e, IsaacHydraExtError)
        what = str(e) if ours else f"starting Isaac Lab: {type(e).__name__}: {first_line(e)}"
        raise EnvError(f"{what}; its output is in {name}") from e
    finally:
        said.append(_kept_in.read_text(errors="replace"))
        if not stays:
            _kept_in.unlink()
        _kept_in = None


@contextlib.contextmanager
def _printing_to(descriptor: int) -> Iterator[None]:
    """Have stdout and stderr be an open file, which is closed at the end."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in zip((1, 2), saved, strict=True):
            os.dup2(original, number)
            os.close(original)


def tell_start(what: str) -> None:
    """Say what may take minutes, and where its output is if it is not on the terminal."""
    tell(what if _kept_in is None else f"{what}, output in {_kept_in}")


@contextlib.contextmanager
def host_settings_kept() -> Iterator[None]:
    """Put back what Kit changes in its host: signal handlers, stdout, stderr, torch's threads."""
    handlers = {s: signal.getsignal(s) for s in KEPT_SIGNALS}
    streams, threads = (sys.stdout, sys.stderr), torch.get_num_threads()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        torch.set_num_threads(threads)
        for signum, handler in handlers.items():
            if handler is not None and signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)


@contextlib.contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Interrupt a block in the learner's main thread; a worker is watched by the learner.

    Raises:
        EnvError: The block took longer.
    """

    def interrupt(*_: Any) -> None:
        raise EnvError(f"{what}: not done after {seconds:g} s")

    if multiprocessing.parent_process() is not None:
        yield
        return
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
