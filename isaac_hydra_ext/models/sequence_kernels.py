"""The Triton kernels of `sequence_cells.py`: the same functions, one kernel each.

Imported in the learner's process, where that has a GPU. All tensors are contiguous.
"""

from typing import Any

import torch
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]

UNITS_PER_PROGRAM = 512


def _run(kernel: Any, like_CH: torch.Tensor, *tensors: torch.Tensor) -> None:
    """Run a kernel over all units of all columns."""
    units, H = like_CH.numel(), like_CH.shape[1]
    programs = (triton.cdiv(units, UNITS_PER_PROGRAM),)
    kernel[programs](*tensors, units, H, UNITS=UNITS_PER_PROGRAM)


def lstm(
    gates_CG: torch.Tensor,
    c_before_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    to_active_CG: torch.Tensor,
    to_c_CH: torch.Tensor,
    to_h_CH: torch.Tensor,
    to_next_c_CH: torch.Tensor,
    to_next_h_CH: torch.Tensor,
) -> None:
    """See `sequence_cells.lstm`."""
    written = (to_active_CG, to_c_CH, to_h_CH, to_next_c_CH, to_next_h_CH)
    _run(_lstm, to_c_CH, gates_CG, c_before_CH, keep_C1, *written)


def lstm_backward(
    grad_h_CH: torch.Tensor,
    grad_next_h_CH: torch.Tensor,
    grad_next_c_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    active_CG: torch.Tensor,
    c_CH: torch.Tensor,
    c_before_CH: torch.Tensor,
    to_grad_gates_CG: torch.Tensor,
    to_grad_c_CH: torch.Tensor,
) -> None:
    """See `sequence_cells.lstm_backward`."""
    gradients = (grad_h_CH, grad_next_h_CH, grad_next_c_CH, keep_C1)
    known = (active_CG, c_CH, c_before_CH)
    _run(_lstm_backward, c_CH, *gradients, *known, to_grad_gates_CG, to_grad_c_CH)


def gru(
    gates_x_CG: torch.Tensor,
    gates_h_CG: torch.Tensor,
    before_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    to_active_CA: torch.Tensor,
    to_h_CH: torch.Tensor,
    to_next_CH: torch.Tensor,
    to_next_h_CH: torch.Tensor,
) -> None:
    """See `sequence_cells.gru`."""
    written = (to_active_CA, to_h_CH, to_next_CH, to_next_h_CH)
    _run(_gru, before_CH, gates_x_CG, gates_h_CG, before_CH, keep_C1, *written)


def gru_backward(
    grad_h_CH: torch.Tensor,
    grad_next_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    active_CA: torch.Tensor,
    before_CH: torch.Tensor,
    to_grad_x_CG: torch.Tensor,
    to_grad_h_CG: torch.Tensor,
    to_grad_before_CH: torch.Tensor,
) -> None:
    """See `sequence_cells.gru_backward`."""
    known = (grad_h_CH, grad_next_CH, keep_C1, active_CA, before_CH)
    _run(_gru_backward, before_CH, *known, to_grad_x_CG, to_grad_h_CG, to_grad_before_CH)


# What follows has Triton's own types. A unit is one number of one column's state.


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _lstm(gates, c_before, keep, active, to_c, to_h, next_c, next_h, units, H, UNITS: tl.constexpr):
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside, column = unit < units, unit // H
    at = column * 4 * H + unit % H
    i = tl.sigmoid(tl.load(gates + at, mask=inside, other=0.0).to(tl.float32))
    f = tl.sigmoid(tl.load(gates + at + H, mask=inside, other=0.0).to(tl.float32))
    g = _tanh(tl.load(gates + at + 2 * H, mask=inside, other=0.0).to(tl.float32))
    o = tl.sigmoid(tl.load(gates + at + 3 * H, mask=inside, other=0.0).to(tl.float32))
    kept = tl.load(keep + column, mask=inside, other=0.0)
    c = f * tl.load(c_before + unit, mask=inside, other=0.0) + i * g
    h = o * _tanh(c)
    tl.store(active + at, i, mask=inside)
    tl.store(active + at + H, f, mask=inside)
    tl.store(active + at + 2 * H, g, mask=inside)
    tl.store(active + at + 3 * H, o, mask=inside)
    tl.store(to_c + unit, c, mask=inside)
    tl.store(to_h + unit, h, mask=inside)
    tl.store(next_c + unit, c * kept, mask=inside)
    tl.store(next_h + unit, h * kept, mask=inside)


@triton.jit
def _lstm_backward(
    grad_h, next_h, next_c, keep, active, c, c_before, to_gates, to_c, units, H,
    UNITS: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside, column = unit < units, unit // H
    at = column * 4 * H + unit % H
    i = tl.load(active + at, mask=inside, other=0.0).to(tl.float32)
    f = tl.load(active + at + H, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(active + at + 2 * H, mask=inside, other=0.0).to(tl.float32)
    o = tl.load(active + at + 3 * H, mask=inside, other=0.0).to(tl.float32)
    kept = tl.load(keep + column, mask=inside, other=0.0)
    tanh_c = _tanh(tl.load(c + unit, mask=inside, other=0.0))
    of_h = tl.load(grad_h + unit, mask=inside, other=0.0).to(tl.float32)
    of_h += tl.load(next_h + unit, mask=inside, other=0.0).to(tl.float32) * kept
    of_c = tl.load(next_c + unit, mask=inside, other=0.0) * kept
    of_c += of_h * o * (1.0 - tanh_c * tanh_c)
    before = tl.load(c_before + unit, mask=inside, other=0.0)
    tl.store(to_gates + at, of_c * g * i * (1.0 - i), mask=inside)
    tl.store(to_gates + at + H, of_c * before * f * (1.0 - f), mask=inside)
    tl.store(to_gates + at + 2 * H, of_c * i * (1.0 - g * g), mask=inside)
    tl.store(to_gates + at + 3 * H, of_h * tanh_c * o * (1.0 - o), mask=inside)
    tl.store(to_c + unit, of_c * f, mask=inside)


@triton.jit
def _gru(
    gates_x, gates_h, before, keep, active, to_h, to_next, next_h, units, H,
    UNITS: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside, column = unit < units, unit // H
    at, to = column * 3 * H + unit % H, column * 4 * H + unit % H
    x_r = tl.load(gates_x + at, mask=inside, other=0.0).to(tl.float32)
    x_z = tl.load(gates_x + at + H, mask=inside, other=0.0).to(tl.float32)
    x_n = tl.load(gates_x + at + 2 * H, mask=inside, other=0.0).to(tl.float32)
    h_r = tl.load(gates_h + at, mask=inside, other=0.0).to(tl.float32)
    h_z = tl.load(gates_h + at + H, mask=inside, other=0.0).to(tl.float32)
    h_n = tl.load(gates_h + at + 2 * H, mask=inside, other=0.0).to(tl.float32)
    kept = tl.load(keep + column, mask=inside, other=0.0)
    r, z = tl.sigmoid(x_r + h_r), tl.sigmoid(x_z + h_z)
    n = _tanh(x_n + r * h_n)
    h = n + z * (tl.load(before + unit, mask=inside, other=0.0) - n)
    tl.store(active + to, r, mask=inside)
    tl.store(active + to + H, z, mask=inside)
    tl.store(active + to + 2 * H, n, mask=inside)
    tl.store(active + to + 3 * H, h_n, mask=inside)
    tl.store(to_h + unit, h, mask=inside)
    tl.store(to_next + unit, h * kept, mask=inside)
    tl.store(next_h + unit, h * kept, mask=inside)


@triton.jit
def _gru_backward(
    grad_h, grad_next, keep, active, before, to_x, to_h, to_before, units, H,
    UNITS: tl.constexpr,
):  # fmt: skip
    unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside, column = unit < units, unit // H
    at, to = column * 4 * H + unit % H, column * 3 * H + unit % H
    r = tl.load(active + at, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(active + at + H, mask=inside, other=0.0).to(tl.float32)
    n = tl.load(active + at + 2 * H, mask=inside, other=0.0).to(tl.float32)
    h_n = tl.load(active + at + 3 * H, mask=inside, other=0.0).to(tl.float32)
    kept = tl.load(keep + column, mask=inside, other=0.0)
    grad = tl.load(grad_h + unit, mask=inside, other=0.0).to(tl.float32)
    grad += tl.load(grad_next + unit, mask=inside, other=0.0).to(tl.float32) * kept
    of_n = grad * (1.0 - z) * (1.0 - n * n)
    of_r = of_n * h_n * r * (1.0 - r)
    of_z = grad * (tl.load(before + unit, mask=inside, other=0.0) - n) * z * (1.0 - z)
    tl.store(to_x + to, of_r, mask=inside)
    tl.store(to_x + to + H, of_z, mask=inside)
    tl.store(to_x + to + 2 * H, of_n, mask=inside)
    tl.store(to_h + to, of_r, mask=inside)
    tl.store(to_h + to + H, of_z, mask=inside)
    tl.store(to_h + to + 2 * H, of_n * r, mask=inside)
    tl.store(to_before + unit, grad * z, mask=inside)
