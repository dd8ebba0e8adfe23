"""An LSTM or GRU over columns of time, whose states begin anew where an episode does.

Used by the learner and by every collector. `step` is one step of all envs; `run` is whole columns,
with gradients. The state of a network is (h,) or (h, c), [C, layers, H] each.
"""

from collections.abc import Sequence

import torch
from torch import nn

from isaac_hydra_ext.models.sequence_scan import gru_scan, lstm_scan

Carried = tuple[torch.Tensor, ...]
Weights = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def step(rnn: nn.RNNBase, x_CI: torch.Tensor, state: Carried) -> Carried:
    """Return the state after one step; its `h` of the last layer is the output [C, H]."""
    after: list[Carried] = []
    for layer in range(rnn.num_layers):
        before, weights = [part[:, layer] for part in state], weights_of(rnn, layer)
        if isinstance(rnn, nn.LSTM):
            after.append(torch.lstm_cell(x_CI, before, *weights))
        else:
            after.append((torch.gru_cell(x_CI, before[0], *weights),))
        x_CI = after[-1][0]
    return tuple(torch.stack(parts, dim=1) for parts in zip(*after, strict=True))


def output(state: Carried) -> torch.Tensor:
    """Return what a network says after the step that it has this state of, [C, H]."""
    return state[0][:, -1]


def kept(state: Carried, starts_C: torch.Tensor) -> Carried:
    """Return the state with zeros where an episode begins."""
    keep_C11 = (~starts_C).view(-1, 1, 1).to(torch.float32)
    return tuple(part * keep_C11 for part in state)


@torch.compiler.disable()  # its loop would be unrolled, and compiled for each number of steps
def run(
    rnn: nn.RNNBase, x_TCI: torch.Tensor, state: Carried, starts_TC: torch.Tensor
) -> torch.Tensor:
    """Return the outputs [T, C, H] of whole columns; nothing is differentiated beyond them.

    Args:
        rnn: Layers without dropout, one direction.
        x_TCI: Inputs.
        state: Before the first step, constants.
        starts_TC: Where an episode begins: the state before that step is zero.
    """
    if not x_TCI.shape[1]:  # a rank all of whose envs were left out
        return x_TCI.new_zeros(*x_TCI.shape[:2], rnn.hidden_size)
    if x_TCI.device.type == "cpu" and isinstance(rnn, nn.LSTM):  # oneDNN has one, and no GRU
        return _run_between_starts(rnn, x_TCI, state, starts_TC)
    return run_masked(rnn, x_TCI, state, starts_TC)


def run_masked(
    rnn: nn.RNNBase, x_TCI: torch.Tensor, state: Carried, starts_TC: torch.Tensor
) -> torch.Tensor:
    """Do it in T steps of fixed shapes, that no host decides about: part of a CUDA graph.

    The products with inputs, and the gradients of weights, are one for all steps.
    """
    last_1C = torch.zeros_like(starts_TC[:1])
    keep_T1C1 = (~torch.cat([starts_TC, last_1C])).unsqueeze(-1).to(torch.float32)
    for layer in range(rnn.num_layers):
        before = tuple(part[:, layer] for part in state)
        scan = lstm_scan if isinstance(rnn, nn.LSTM) else gru_scan
        x_TCI = scan(x_TCI, before, keep_T1C1, weights_of(rnn, layer))
    return x_TCI


def _run_between_starts(
    rnn: nn.LSTM, x_TCI: torch.Tensor, state: Carried, starts_TC: torch.Tensor
) -> torch.Tensor:
    """Do it in as few calls of the library as episodes allow: where none begins, time is whole."""
    cuts = starts_TC.any(dim=1).nonzero().squeeze(1).tolist()
    ends = sorted({*cuts, x_TCI.shape[0]} - {0})
    outputs, begin = [], 0
    for end in ends:
        before = [part.transpose(0, 1).contiguous() for part in kept(state, starts_TC[begin])]
        out_TCH, after = rnn(x_TCI[begin:end], tuple(before))
        state = tuple(part.transpose(0, 1) for part in after)
        outputs.append(out_TCH)
        begin = end
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def weights_of(rnn: nn.RNNBase, layer: int) -> Weights:
    """Return a layer's weights: of inputs [G * H, I], of states [G * H, H], and both biases."""
    names: Sequence[str] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    found = [getattr(rnn, f"{name}_l{layer}") for name in names]
    return found[0], found[1], found[2], found[3]
