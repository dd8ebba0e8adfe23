"""Running mean and standard deviation. The learner updates them; workers only apply them.

The policy reads `mean` and `std`, float32 buffers that travel with the weights. The sums behind
them are float64 and stay with the learner: a float32 count stops counting at 2^24 samples.
"""

from collections.abc import Callable

import torch
from torch import nn

# (rows, mean [S], variance [S]) of a rank's batch -> of all ranks' together.
Moments = tuple[torch.Tensor | int, torch.Tensor, torch.Tensor]
Reduction = Callable[[int, torch.Tensor, torch.Tensor], Moments]
EPSILON = 1e-2  # added to std, as rsl_rl does: a constant input stays near zero


def own_alone(rows: int, mean: torch.Tensor, var: torch.Tensor) -> Moments:
    """One rank's moments are all there are."""
    return rows, mean, var


class Normalizer(nn.Module):
    """Normalises the last dimension by statistics of all samples so far.

    Batches are merged by Chan et al. 1979 (Welford's update for batches). Before the first
    `update` it is the identity.
    """

    mean: torch.Tensor
    std: torch.Tensor
    count: torch.Tensor
    exact_mean: torch.Tensor
    exact_var: torch.Tensor

    def __init__(self, size: int) -> None:
        """Start as the identity on vectors of `size` numbers."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("exact_mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("exact_var", torch.zeros(size, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise [..., size]."""
        return (x - self.mean) / self.std

    def inverse(self, x: torch.Tensor) -> torch.Tensor:
        """Undo `forward`."""
        return x * self.std + self.mean

    @torch.no_grad()
    def update(self, batch_NS: torch.Tensor, combine: Reduction = own_alone) -> None:
        """Merge a batch into the statistics, on the batch's device, without synchronising.

        Args:
            batch_NS: N samples.
            combine: Makes the batch's moments those of all ranks.
        """
        batch_var, batch_mean = torch.var_mean(batch_NS.double(), dim=0, correction=0)
        rows, batch_mean, batch_var = combine(batch_NS.shape[0], batch_mean, batch_var)
        total = self.count + rows
        delta = batch_mean - self.exact_mean
        share = rows / total
        between = delta.square() * share * (1.0 - share)
        self.exact_var.copy_(self.exact_var * (1.0 - share) + batch_var * share + between)
        self.exact_mean.add_(delta * share)
        self.count.copy_(total)
        self.mean.copy_(self.exact_mean)
        self.std.copy_(self.exact_var.sqrt() + EPSILON)
