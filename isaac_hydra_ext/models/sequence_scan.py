"""One layer of an LSTM or GRU over T steps that a mask interrupts, with its gradients by hand.

Runs in the learner's process, on a GPU. A step is one matrix product and one kernel, forwards and
backwards; autograd of the same steps would add up T gradients of the weights, and cuDNN knows no
episode that begins inside a column. All shapes are fixed and nothing waits for the host. The gates
are in PyTorch's order: i, f, g, o of an LSTM (Hochreiter and Schmidhuber 1997, with the forget gate
of Gers et al. 2000); r, z, n of a GRU (Cho et al. 2014).
"""

from typing import Any

import torch
from torch.nn import functional as F

from isaac_hydra_ext.models import sequence_cells
from isaac_hydra_ext.system import compiler

Weights = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def lstm_scan(
    x_TCI: torch.Tensor,
    state: tuple[torch.Tensor, ...],
    keep_T1C1: torch.Tensor,
    weights: Weights,
) -> torch.Tensor:
    """Return outputs [T, C, H].

    Args:
        x_TCI: Inputs.
        state: h and c before the first step, [C, H]; constants.
        keep_T1C1: 0 where the state before a step is zero, else 1; a row more than there are steps.
        weights: As of `weights_of`.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    gates_TCG = F.linear(x_TCI, w_ih, b_ih + b_hh)
    # A state that autocast's own steps made is in its type, and adds up in float32 from here.
    return _LSTM.apply(gates_TCG, *(part.float() for part in state), keep_T1C1, w_hh)  # type: ignore[return-value]


def gru_scan(
    x_TCI: torch.Tensor,
    state: tuple[torch.Tensor, ...],
    keep_T1C1: torch.Tensor,
    weights: Weights,
) -> torch.Tensor:
    """Return outputs [T, C, H]; see `lstm_scan`."""
    w_ih, w_hh, b_ih, b_hh = weights
    gates_TCG = F.linear(x_TCI, w_ih, b_ih)
    return _GRU.apply(gates_TCG, *(part.float() for part in state), keep_T1C1, w_hh, b_hh)  # type: ignore[return-value]


class _LSTM(torch.autograd.Function):
    """Under autocast gates and h are in its type; c, which adds up, is float32."""

    @staticmethod
    def forward(
        ctx: Any,
        gates_TCG: torch.Tensor,
        h_CH: torch.Tensor,
        c_CH: torch.Tensor,
        keep_T1C1: torch.Tensor,
        w_hh: torch.Tensor,
    ) -> torch.Tensor:
        T, C, G = gates_TCG.shape
        H, cells, w_hh = G // 4, _cells(gates_TCG), w_hh.to(gates_TCG.dtype)
        out_TCH, active_TCG = gates_TCG.new_empty(T, C, H), torch.empty_like(gates_TCG)
        h_T1CH, c_TCH = gates_TCG.new_empty(T + 1, C, H), c_CH.new_empty(T, C, H)
        c_T1CH = c_CH.new_empty(T + 1, C, H)  # as steps read it
        h_T1CH[0].copy_(h_CH * keep_T1C1[0])
        c_T1CH[0].copy_(c_CH * keep_T1C1[0])
        for t in range(T):
            cells.lstm(
                torch.addmm(gates_TCG[t], h_T1CH[t], w_hh.t()), c_T1CH[t], keep_T1C1[t + 1],
                active_TCG[t], c_TCH[t], out_TCH[t], c_T1CH[t + 1], h_T1CH[t + 1],
            )  # fmt: skip
        ctx.save_for_backward(active_TCG, c_TCH, c_T1CH, h_T1CH, keep_T1C1, w_hh)
        return out_TCH

    @staticmethod
    def backward(ctx: Any, grad_TCH: torch.Tensor) -> Any:  # type: ignore[override]
        active_TCG, c_TCH, c_T1CH, h_T1CH, keep_T1C1, w_hh = ctx.saved_tensors
        cells, grad_TCH = _cells(active_TCG), grad_TCH.contiguous()
        of_gates_TCG, of_h = torch.empty_like(active_TCG), torch.zeros_like(h_T1CH[0])
        of_c, spare = torch.zeros_like(c_TCH[0]), torch.empty_like(c_TCH[0])
        for t in reversed(range(len(grad_TCH))):
            cells.lstm_backward(
                grad_TCH[t], of_h, of_c, keep_T1C1[t + 1],
                active_TCG[t], c_TCH[t], c_T1CH[t], of_gates_TCG[t], spare,
            )  # fmt: skip
            of_c, spare = spare, of_c
            if t:
                of_h = of_gates_TCG[t] @ w_hh
        of_weights = of_gates_TCG.flatten(0, 1).t() @ h_T1CH[:-1].flatten(0, 1)
        return of_gates_TCG, None, None, None, of_weights.float()


class _GRU(torch.autograd.Function):
    """Under autocast gates are in its type; h, which adds up, is float32, with a copy in it."""

    @staticmethod
    def forward(
        ctx: Any,
        gates_TCG: torch.Tensor,
        h_CH: torch.Tensor,
        keep_T1C1: torch.Tensor,
        w_hh: torch.Tensor,
        b_hh: torch.Tensor,
    ) -> torch.Tensor:
        T, C, G = gates_TCG.shape
        dtype = gates_TCG.dtype
        H, cells, w_hh, b_hh = G // 3, _cells(gates_TCG), w_hh.to(dtype), b_hh.to(dtype)
        out_TCH, active_TCA = gates_TCG.new_empty(T, C, H), gates_TCG.new_empty(T, C, 4 * H)
        exact_T1CH = h_CH.new_empty(T + 1, C, H)
        h_T1CH = exact_T1CH if dtype == h_CH.dtype else torch.empty_like(exact_T1CH, dtype=dtype)
        exact_T1CH[0].copy_(h_CH * keep_T1C1[0])
        h_T1CH[0].copy_(exact_T1CH[0])
        for t in range(T):
            cells.gru(
                gates_TCG[t], torch.addmm(b_hh, h_T1CH[t], w_hh.t()), exact_T1CH[t],
                keep_T1C1[t + 1], active_TCA[t], out_TCH[t], exact_T1CH[t + 1], h_T1CH[t + 1],
            )  # fmt: skip
        ctx.save_for_backward(active_TCA, exact_T1CH, h_T1CH, keep_T1C1, w_hh)
        return out_TCH

    @staticmethod
    def backward(ctx: Any, grad_TCH: torch.Tensor) -> Any:  # type: ignore[override]
        active_TCA, exact_T1CH, h_T1CH, keep_T1C1, w_hh = ctx.saved_tensors
        cells, grad_TCH = _cells(active_TCA), grad_TCH.contiguous()
        T, C, H = grad_TCH.shape
        of_x_TCG, of_h_TCG = active_TCA.new_empty(2, T, C, 3 * H)
        of_before, past_gates = torch.zeros_like(exact_T1CH[0]), torch.empty_like(exact_T1CH[0])
        for t in reversed(range(T)):
            cells.gru_backward(
                grad_TCH[t], of_before, keep_T1C1[t + 1], active_TCA[t], exact_T1CH[t],
                of_x_TCG[t], of_h_TCG[t], past_gates,
            )  # fmt: skip
            if t:
                of_before = past_gates + of_h_TCG[t] @ w_hh
        of_h_NG = of_h_TCG.flatten(0, 1)
        of_weights = of_h_NG.t() @ h_T1CH[:-1].flatten(0, 1)
        return of_x_TCG, None, None, of_weights.float(), of_h_NG.sum(0, dtype=torch.float32)


def _cells(gates: torch.Tensor) -> Any:
    """Return the module whose functions do a step: kernels where they can be built."""
    if gates.device.type == "cuda" and not compiler.why_not("cuda"):
        from isaac_hydra_ext.models import sequence_kernels

        return sequence_kernels
    return sequence_cells
