"""Fused kernels: whether this machine can build them, and torch.compile for those of ours.

Runs in the learner's process.
"""

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from isaac_hydra_ext.errors import first_line

P = ParamSpec("P")
R = TypeVar("R")


@cache
def why_not(device: str) -> str:
    """Return what is missing to compile kernels for `cuda` or `cpu`; empty if nothing is."""
    return _why_not_cuda() if device == "cuda" else _why_not_cpu()


def _why_not_cuda() -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (PyTorch's CUDA wheels for Linux bring it)"
    # Triton and torch.compile build a small C launcher for each kernel.
    compilers = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    if not any(name and shutil.which(name) for name in compilers):
        return "there is no C compiler (apt-get install gcc, or set CC)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers are missing (apt-get install python3-dev)"
    return ""


def _why_not_cpu() -> str:
    """Compile something small: a C++ compiler alone is not enough, headers are needed too."""
    try:
        torch.compile(torch.tanh, dynamic=False)(torch.zeros(8))
    except RuntimeError as e:
        cause = getattr(e, "inner_exception", e)  # torch 2.5 wraps what its compiler says
        return f"torch.compile fails here (apt-get install g++ python3-dev?): {first_line(cause)}"
    return ""


def fused(function: Callable[P, R], compiled: bool) -> Callable[P, R]:
    """Return a function with fused kernels, or as it is.

    Each shape has its own: there are two, the minibatch's and the shorter last one's.
    """
    return torch.compile(function, dynamic=False) if compiled else function
