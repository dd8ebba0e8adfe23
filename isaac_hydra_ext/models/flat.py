"""All numbers of a module as one vector. Used by the learner and by every collector."""

import torch
from torch import nn


def flatten(module: nn.Module) -> tuple[torch.Tensor, int]:
    """Move all parameters and float32 buffers into one vector and make them views of it.

    Publishing a version, loading it and stepping the optimizer are then one operation each. Buffers
    of other types (exact sums behind a normaliser) stay where they are: acting does not need them.

    Returns:
        The vector, float32 [P + S], and P: parameters come first, as `module.parameters()` has
        them.
    """
    parameters = list(module.parameters())
    statistics = [b for b in module.buffers() if b.dtype == torch.float32]
    tensors = [p.data for p in parameters] + statistics
    flat = torch.cat([t.reshape(-1) for t in tensors])
    offset = 0
    for tensor, owner in zip(tensors, parameters + statistics, strict=True):
        view = flat[offset : offset + tensor.numel()].view(tensor.shape)
        owner.data = view
        offset += tensor.numel()
    return flat, sum(p.numel() for p in parameters)
