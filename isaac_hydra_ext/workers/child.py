"""What every process spawned by the learner does first, and how it tells what went wrong.

Runs in worker processes and in the evaluator's.
"""

import hashlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from isaac_hydra_ext.errors import IsaacHydraExtError
from isaac_hydra_ext.system.parent_death import die_with_parent

MAX_TRACEBACK = 3000  # characters; a message stays under 4 KiB
LAST_FRAMES = 5  # of a traceback, which say where it was raised


def become_child(parent_pid: int) -> None:
    """Die with the learner, lead a process group, leave Ctrl-C to the learner, use one thread."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(1)
    os.setpgid(0, 0)  # helpers that a simulator starts are killed with this process
    multiprocessing.current_process().daemon = False  # one that is may have no helpers
    _take_forked_helpers_along()
    _drop_what_cannot_be_written()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _take_forked_helpers_along() -> None:
    """Have what the main thread forks die with this process, should it be killed.

    A forked helper holds copies of all its pipes' ends, and so never reads their end. What is
    spawned does, and `LocalProcess.kill` sees to all of them where the learner lives. A thread
    other than the main one may end, which the kernel would take for the parent's death.
    """
    pid, by_main_thread = os.getpid(), [False]

    def before() -> None:
        by_main_thread[0] = threading.current_thread() is threading.main_thread()

    def in_helper() -> None:
        if by_main_thread[0] and os.getppid() == pid:
            die_with_parent(signal.SIGKILL)

    os.register_at_fork(before=before, after_in_child=in_helper)


class _Dropping(io.FileIO):
    """A file that drops what cannot be written."""

    def write(self, data: Any) -> int:
        """Write, and never raise: an env that prints needs no disk."""
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _drop_what_cannot_be_written() -> None:
    """Keep a full disk, or a terminal that is gone, from failing whatever prints."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if before is not None:  # else it was closed before this process began
            raw = _Dropping(fd, "w", closefd=False)
            lines = io.TextIOWrapper(
                io.BufferedWriter(raw), before.encoding, "backslashreplace", line_buffering=True
            )
            setattr(sys, name, lines)


def serve(run: Callable[[], None], report: Callable[[Exception], None]) -> None:
    """Call `run`; what it raises is reported, and ends the process with exit code 1."""
    try:
        run()
    except EOFError:
        sys.exit(1)  # the learner is gone, and with it anybody to tell
    except Exception as e:
        try:
            if not isinstance(e, IsaacHydraExtError):  # our own errors are told, and are enough
                traceback.print_exc()  # into the process's log; once it is told, we may be killed
        finally:
            report(e)
        sys.exit(1)


def error_body(error: Exception, phase: str, env: str) -> dict[str, Any]:
    """Return the body of an ERROR message.

    Class (of errors.py), message, traceback, phase, env, and place: the same for the same exception
    raised by the same lines, also in another process.
    """
    name = type(error).__name__ if isinstance(error, IsaacHydraExtError) else ""
    message = str(error) if name else f"{type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
    return {
        "class": name,
        "message": message[:800],
        "traceback": text,
        "place": _place(error),
        "phase": phase,
        "env": env,
    }


def _place(error: Exception) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))[-LAST_FRAMES:]
    lines = [f"{frame.f_code.co_filename}:{line}" for frame, line in frames]
    return hashlib.sha256("\n".join([type(error).__name__, *lines]).encode()).hexdigest()[:16]


def redirect_output(path: Path) -> str:
    """Send this process's stdout and stderr, native code's included, to a file.

    Returns:
        Why they go nowhere instead, if they do: a log is no reason to fail.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    why_not = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as e:
        why_not, log = f"no log: {e}", os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return why_not


def pin(core: int | None) -> None:
    """Keep this process to one core; with None to none."""
    if core is not None:
        os.sched_setaffinity(0, {core})
