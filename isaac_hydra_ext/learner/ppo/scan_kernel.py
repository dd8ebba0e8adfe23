"""The Triton kernel of `scan.py`. Imported in the learner's process, where that has a GPU."""

from typing import Any

import torch
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]

COLUMNS_PER_PROGRAM = 128


def fused_scan(a_TN: torch.Tensor, b_TN: torch.Tensor) -> torch.Tensor:
    """Compute `scan.reverse_scan` in one pass over both inputs."""
    a_TN, b_TN = a_TN.contiguous(), b_TN.contiguous()
    x_TN = torch.empty_like(a_TN)
    T, N = a_TN.shape
    programs = (triton.cdiv(N, COLUMNS_PER_PROGRAM),)
    kernel: Any = _scan
    kernel[programs](a_TN, b_TN, x_TN, T, N, COLUMNS=COLUMNS_PER_PROGRAM)
    return x_TN


@triton.jit
def _scan(a, b, x, T, N, COLUMNS: tl.constexpr):  # noqa: ANN001, ANN202 (Triton's own types)
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = n < N
    running = tl.zeros([COLUMNS], tl.float32)
    for i in range(T):
        at = (T - 1 - i) * N + n
        a_t = tl.load(a + at, mask=inside, other=0.0)
        b_t = tl.load(b + at, mask=inside, other=0.0)
        running = a_t + b_t * running
        tl.store(x + at, running, mask=inside)
