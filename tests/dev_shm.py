"""What is in /dev/shm, and what of it the tests of this process have left there."""

import os
import time
from pathlib import Path

import psutil

PATIENCE_S = 10.0
# Of joblib's launcher and of Kit, which keep names that no process maps. The runs whose leavings
# are looked for use neither; tests beside them may.
STRANGERS = ("joblib_", "sem.loky-", "carb-", "sem.carb")


def in_dev_shm() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if not name.startswith(STRANGERS)}


def left_in_dev_shm(before: set[str]) -> set[str]:
    """Return the names that are new since `before` and stay, without those that others hold.

    Tests that run at the same time, and whoever else is at work on this machine, make names too.
    Theirs are mapped by a living process that is neither this one nor one that it started, or
    are about to be removed because that process has ended.
    """
    deadline = time.monotonic() + PATIENCE_S
    while (left := _left(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _left(before: set[str]) -> set[str]:
    with os.scandir("/dev/shm") as entries:
        new = {entry.name: entry.inode() for entry in entries if entry.name not in before}
    others = _mapped_by_others() if new else set()
    left = {name for name, inode in new.items() if inode not in others}
    return left & in_dev_shm()  # others remove theirs while we look


def _mapped_by_others() -> set[int]:
    """Return inodes: the path of a semaphore's mapping is that of its first, deleted name."""
    me = psutil.Process()
    ours = {me.pid, *(child.pid for child in me.children(recursive=True))}
    inodes = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = [] if int(maps.parent.name) in ours else maps.read_text().splitlines()
        except OSError:  # it has ended, or is another user's
            continue
        inodes |= {int(line.split()[4]) for line in lines if " /dev/shm/" in line}
    return inodes
