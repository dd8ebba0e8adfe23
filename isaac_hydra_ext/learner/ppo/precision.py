"""The precision of an update, `ppo.precision`. Used in the learner's process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Compute matrix products and convolutions as `ppo.precision` says.

    float32 inputs and outputs stay float32. tf32 is a switch of the whole process: what other
    threads start meanwhile has it too. cuDNN tries its algorithms out for each new shape, and keeps
    the fastest.
    """
    if precision == "auto":
        precision = "tf32" if has_tf32(device) else "fp32"
    with _cudnn(precision, device):
        if precision == "bf16":
            # No cache: a cast weight must not outlive the step that changes the weight.
            with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
                yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


@contextmanager
def _cudnn(precision: str, device: torch.device) -> Iterator[None]:
    """Have cuDNN do so too: its switch is another one, and on by itself."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, cudnn.benchmark = precision != "fp32", True
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before


def has_tf32(device: torch.device) -> bool:
    """Return whether a device multiplies in TF32: NVIDIA's GPUs since Ampere."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_properties(device).major >= 8
