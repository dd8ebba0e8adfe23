"""Triton kernels of a convolution of few channels: forwards, and both gradients.

Imported in processes that have a GPU. Tensors are contiguous with the channels of a pixel side by
side, so that one row of a window, [kernel * C] numbers, is one run of memory: a convolution is a
matrix product of runs and weights (Chellapilla et al. 2006) whose left side is never written down.
Sums are float32 and in a fixed order: the same input gives the same bits.
"""

from typing import Any

import torch
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]

PIXELS = 128  # of the output, a program
RUN = 32  # numbers of a run that are multiplied at once
PROGRAMS = 1024  # of a weight's gradient, about: each sums a part of all pixels
GRADIENT_PIXELS = 64  # at once
WARPS = 4


def forward(
    x_NHWC: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    stride: int,
    pad: int,
    precision: str,
) -> torch.Tensor:
    """Return [N, OH, OW, F].

    Args:
        x_NHWC: Pictures.
        weight: [F, C, kernel, kernel] in the dtype of the pictures.
        bias: [F].
        stride: Of the windows.
        pad: Zeros beyond each edge.
        precision: Of float32 products: `tf32` or `ieee`.
    """
    N, H, W, C = x_NHWC.shape
    F, _, kernel, _ = weight.shape
    OH, OW = (H + 2 * pad - kernel) // stride + 1, (W + 2 * pad - kernel) // stride + 1
    y = x_NHWC.new_empty(N, OH, OW, F)
    M = N * OH * OW
    _launch(
        _forward, (triton.cdiv(M, PIXELS),),
        x_NHWC, weight.permute(2, 3, 1, 0).contiguous(), bias, y, M, H, W, OH, OW, C, F, kernel,
        stride, pad, _power(F), RUN, PIXELS, precision,
    )  # fmt: skip
    return y


def weight_gradient(
    x_NHWC: torch.Tensor,
    gradient: torch.Tensor,
    kernel: int,
    stride: int,
    pad: int,
    precision: str,
) -> torch.Tensor:
    """Return [F, C, kernel, kernel] float32; `gradient` is [N, OH, OW, F]."""
    N, H, W, C = x_NHWC.shape
    _, OH, OW, F = gradient.shape
    M, run = N * OH * OW, kernel * C
    columns = kernel * triton.cdiv(run, RUN)
    share = triton.cdiv(triton.cdiv(M, max(1, PROGRAMS // columns)), GRADIENT_PIXELS)
    parts = triton.cdiv(M, share * GRADIENT_PIXELS)
    sums = x_NHWC.new_empty((parts, kernel * run, F), dtype=torch.float32)
    _launch(
        _weight_gradient, (parts, columns),
        x_NHWC, gradient, sums, M, share, H, W, OH, OW, C, F, kernel, stride, pad, _power(F),
        RUN, GRADIENT_PIXELS, precision,
    )  # fmt: skip
    return sums.sum(0).view(kernel, kernel, C, F).permute(3, 2, 0, 1)


def input_gradient(
    gradient: torch.Tensor,
    weight: torch.Tensor,
    size: tuple[int, int],
    stride: int,
    pad: int,
    precision: str,
) -> torch.Tensor:
    """Return [N, H, W, C]; `gradient` is [N, OH, OW, F], `size` is H and W."""
    (N, OH, OW, F), (H, W) = gradient.shape, size
    _, C, kernel, _ = weight.shape
    x = gradient.new_empty(N, H, W, C)
    # Pixels that the same parts of a window reach are one program's: stride ** 2 classes.
    rows, columns = triton.cdiv(H + pad, stride), triton.cdiv(W + pad, stride)
    M = N * rows * columns
    _launch(
        _input_gradient, (triton.cdiv(M, PIXELS), stride * stride),
        gradient, weight.permute(2, 3, 0, 1).contiguous(), x, M, rows, columns, H, W, OH, OW, C, F,
        kernel, stride, pad, _power(C), _power(F), PIXELS, precision,
    )  # fmt: skip
    return x


def _launch(kernel: Any, programs: tuple[int, ...], *arguments: object) -> None:
    kernel[programs](*arguments, num_warps=WARPS)


def _power(numbers: int) -> int:
    """Return the side of a tile for so many numbers."""
    return max(16, triton.next_power_of_2(numbers))


# What follows has Triton's own types. A program has pixels m, and all channels of them.


@triton.jit
def _run(
    x, m, M, kh, r, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    """Return where numbers r of row kh of each pixel's window are, and whether they are there."""
    of_picture = m % (OH * OW)
    row = of_picture // OW * STRIDE + kh - PAD
    first = of_picture % OW * (STRIDE * C) - PAD * C
    start = x + (m // (OH * OW)).to(tl.int64) * (H * W * C) + row * (W * C) + first
    inside = (m < M) & (r < KERNEL * C)
    if PAD:
        at = first + r
        inside = inside & (row >= 0) & (row < H) & (at >= 0) & (at < W * C)
    return start + r, inside


@triton.jit
def _forward(
    x, weight, bias, y, M, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, F: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
    PAD: tl.constexpr, OUT: tl.constexpr, RUN: tl.constexpr, PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    m, o = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, OUT)
    total = tl.zeros((PIXELS, OUT), tl.float32)
    for kh in tl.static_range(KERNEL):
        for r0 in tl.static_range(0, KERNEL * C, RUN):
            r = r0 + tl.arange(0, RUN)
            at, inside = _run(
                x, m[:, None], M, kh, r[None, :], H, W, OH, OW, C, KERNEL, STRIDE, PAD
            )
            pixels = tl.load(at, mask=inside, other=0.0)
            of_run = weight + (kh * KERNEL * C + r[:, None]) * F + o[None, :]
            known = (r[:, None] < KERNEL * C) & (o[None, :] < F)
            weights = tl.load(of_run, mask=known, other=0.0)
            total = tl.dot(pixels, weights, total, input_precision=PRECISION)
    total += tl.load(bias + o, mask=o < F, other=0.0).to(tl.float32)[None, :]
    to = y + m.to(tl.int64)[:, None] * F + o[None, :]
    tl.store(to, total.to(y.dtype.element_ty), mask=(m[:, None] < M) & (o[None, :] < F))


@triton.jit
def _weight_gradient(
    x, gradient, sums, M, share, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr,
    OW: tl.constexpr, C: tl.constexpr, F: tl.constexpr, KERNEL: tl.constexpr,
    STRIDE: tl.constexpr, PAD: tl.constexpr, OUT: tl.constexpr, RUN: tl.constexpr,
    PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    BLOCKS: tl.constexpr = (KERNEL * C + RUN - 1) // RUN
    part, kh = tl.program_id(0), tl.program_id(1) // BLOCKS
    r, o = tl.program_id(1) % BLOCKS * RUN + tl.arange(0, RUN), tl.arange(0, OUT)
    total = tl.zeros((RUN, OUT), tl.float32)
    for step in range(share):
        m = (part * share + step) * PIXELS + tl.arange(0, PIXELS)
        at, inside = _run(x, m[None, :], M, kh, r[:, None], H, W, OH, OW, C, KERNEL, STRIDE, PAD)
        pixels = tl.load(at, mask=inside, other=0.0)
        of_pixel = gradient + m.to(tl.int64)[:, None] * F + o[None, :]
        gradients = tl.load(of_pixel, mask=(m[:, None] < M) & (o[None, :] < F), other=0.0)
        total = tl.dot(pixels, gradients, total, input_precision=PRECISION)
    to = sums + (part * KERNEL * KERNEL * C + kh * KERNEL * C + r[:, None]) * F + o[None, :]
    tl.store(to, total, mask=(r[:, None] < KERNEL * C) & (o[None, :] < F))


@triton.jit
def _input_gradient(
    gradient, weight, x, M, ROWS: tl.constexpr, COLUMNS: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr, IN: tl.constexpr,
    OUT: tl.constexpr, PIXELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    m, c, o = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, IN), tl.arange(0, OUT)
    of_row, of_column = tl.program_id(1) // STRIDE, tl.program_id(1) % STRIDE
    n, of_picture = m // (ROWS * COLUMNS), m % (ROWS * COLUMNS)
    last_row, last_column = of_picture // COLUMNS, of_picture % COLUMNS  # windows that reach it
    row, column = last_row * STRIDE + of_row - PAD, last_column * STRIDE + of_column - PAD
    inside = (m < M) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    total = tl.zeros((PIXELS, IN), tl.float32)
    for back_row in tl.static_range(0, (KERNEL + STRIDE - 1) // STRIDE):
        for back_column in tl.static_range(0, (KERNEL + STRIDE - 1) // STRIDE):
            kh, kw = of_row + back_row * STRIDE, of_column + back_column * STRIDE
            oh, ow = last_row - back_row, last_column - back_column
            reached = inside & (oh >= 0) & (oh < OH) & (ow >= 0) & (ow < OW)
            at = ((n * OH + oh).to(tl.int64) * OW + ow)[:, None] * F + o[None, :]
            gradients = tl.load(gradient + at, mask=reached[:, None] & (o[None, :] < F), other=0.0)
            part = weight + ((kh * KERNEL + kw) * F + o[:, None]) * C + c[None, :]
            known = (kh < KERNEL) & (kw < KERNEL) & (o[:, None] < F) & (c[None, :] < C)
            weights = tl.load(part, mask=known, other=0.0)
            total = tl.dot(gradients, weights, total, input_precision=PRECISION)
    to = x + ((n * H + row).to(tl.int64) * W + column)[:, None] * C + c[None, :]
    tl.store(to, total.to(x.dtype.element_ty), mask=inside[:, None] & (c[None, :] < C))
