"""Ending with one's parent. Used in every process that another of ours starts; imports no torch."""

import ctypes
import sys

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(signum: int) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux)."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signum)
