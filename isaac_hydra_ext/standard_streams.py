"""Standard streams that are closed, full or left by their reader. Runs in a command's process."""

import os
import sys


def open_closed_streams() -> None:
    """Point closed standard streams at /dev/null, before anything else gets their numbers.

    A rollout buffer with file descriptor 2 would be written to by whatever warns in native code.
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


def stdout_error() -> OSError | None:
    """Return why stdout takes nothing; what it could not write is then dropped."""
    try:
        print(flush=True)  # after an error of something else it does no harm
    except OSError as e:
        drop_stdout()
        return e
    return None


def drop_stdout() -> None:
    """Send what is still in stdout's buffer, and all that follows, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
