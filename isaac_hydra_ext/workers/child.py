"""What every process spawned by the learner does first, and how it tells what went wrong.

Runs in worker processes and in the evaluator's.
"""

import hashlib
import os
import signal
import sys
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def serve(run: Callable[[], None], report: Callable[[Exception], None]) -> None:
    """Call `run`; what it raises is reported, and ends the process with exit code 1."""
    try:
        run()
    except EOFError:
        sys.exit(1)  # the learner is gone, and with it anybody to tell
    except Exception as e:
        if not isinstance(e, IsaacHydraExtError):  # our own errors are told, and are enough
            traceback.print_exc()  # into the process's log
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


def redirect_output(path: Path) -> None:
    """Send this process's stdout and stderr, native code's included, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    path.parent.mkdir(exist_ok=True)
    with path.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def pin(core: int | None) -> None:
    """Keep this process to one core; with None to none."""
    if core is not None:
        os.sched_setaffinity(0, {core})
