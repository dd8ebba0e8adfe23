"""Standard streams that are closed, full or left by their reader. Runs in a command's process."""

import io
import os
import sys
from typing import Any


def prepare_streams() -> None:
    """Make the standard streams such that nothing that is said can end a run.

    Closed ones become /dev/null, before anything else gets their numbers: a rollout buffer with
    file descriptor 2 would be written to by whatever warns in native code. What a stream's
    encoding lacks is escaped.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # gets `fd`: the numbers below are taken
            os.set_inheritable(nowhere, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def stdout_error() -> OSError | None:
    """Return why stdout takes nothing; what it could not write is then dropped."""
    try:
        print(flush=True)  # after an error of something else it does no harm
    except OSError as e:
        drop(sys.stdout)
        return e
    return None


def say_error(text: str) -> None:
    """Print on stderr; where that is full the exit code has to do."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)


def drop(stream: Any) -> None:
    """Send what is still in a stream's buffer, and all that follows, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
