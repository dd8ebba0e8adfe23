"""When Python looks for garbage: not while what stays is made.

Runs in the process that hosts the simulation (a worker, or the learner's with W = 0), and in every
command while it is imported.
"""

import contextlib
import gc
from collections.abc import Iterator

_left = False  # an env was closed, and what it left was not looked for


@contextlib.contextmanager
def garbage_uncollected() -> Iterator[None]:
    """Look for no garbage while a simulation is imported and built, nor later in what it made.

    There are millions of them, which stay, and Python would look through all again and again: a
    quarter of the processor time from the command to the first step of Isaac Lab and mjlab.
    """
    global _left
    if _left:
        gc.unfreeze()
        gc.collect()
        _left = False
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def leave_garbage() -> None:
    """Leave it to the next env of this process: before the end it is not worth its seconds."""
    global _left
    gc.freeze()
    _left = True
