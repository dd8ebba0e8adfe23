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
EPSILON = 1e-2  # added to std, as rsl_rl does: an input of tiny numbers stays small
CONSTANT = 1e-20  # (std / mean)^2 of an input that has never varied, rounding apart
CHUNK_BYTES = 64 * 2**20  # of a batch's float64 copy: statistics of images must not need several
WIDE = (torch.float64, torch.int64, torch.int32)  # that float32 cannot hold
REST = "mean_rest"  # a buffer that checkpoints before 0.2.0 lack: zero is what they mean


def own_alone(rows: int, mean: torch.Tensor, var: torch.Tensor) -> Moments:
    """One rank's moments are all there are."""
    return rows, mean, var


class Normalizer(nn.Module):
    """Normalises the last dimension by statistics of all samples so far.

    Batches are merged by Chan et al. 1979 (Welford's update for batches). Before the first
    `update` it is the identity. An input that has never varied is divided by 1, not by almost
    nothing: what it reads on the day that it moves is as large as it is.
    """

    mean: torch.Tensor
    std: torch.Tensor
    mean_rest: torch.Tensor | None
    count: torch.Tensor
    exact_mean: torch.Tensor
    exact_var: torch.Tensor

    def __init__(self, size: int, dtype: torch.dtype = torch.float32) -> None:
        """Start as the identity on vectors of `size` numbers.

        Args:
            size: S.
            dtype: Of the inputs. From those that float32 cannot hold, such as a place on a map,
                the mean is subtracted in float64: `mean_rest` is what `mean` is rounded by.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer(REST, torch.zeros(size) if dtype in WIDE else None)
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("exact_mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("exact_var", torch.zeros(size, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise [..., size]; returns float32."""
        if self.mean_rest is None:
            return (x.to(torch.float32) - self.mean) / self.std
        centered = x.to(torch.float64) - self.mean - self.mean_rest
        return (centered / self.std).to(torch.float32)

    @property
    def whole_mean(self) -> torch.Tensor:
        """The mean [S] that is subtracted, float64 where float32 cannot hold it."""
        return self.mean if self.mean_rest is None else self.mean.double() + self.mean_rest

    def inverse(self, x: torch.Tensor) -> torch.Tensor:
        """Undo `forward`, of float32 inputs."""
        return x * self.std + self.mean

    @torch.no_grad()
    def update(self, batch_NS: torch.Tensor, combine: Reduction = own_alone) -> None:
        """Merge a batch into the statistics, on the batch's device, without synchronising.

        Args:
            batch_NS: N samples.
            combine: Makes the batch's moments those of all ranks.
        """
        rows, batch_mean, batch_var = combine(batch_NS.shape[0], *_moments(batch_NS))
        total = self.count + rows
        mean, var = _merged(self.exact_mean, self.exact_var, batch_mean, batch_var, rows / total)
        self.exact_mean.copy_(mean)
        self.exact_var.copy_(var)
        self.count.copy_(total)
        self.mean.copy_(mean)
        if self.mean_rest is not None:
            self.mean_rest.copy_(mean - self.mean)
        varies = var > CONSTANT * mean.square()
        self.std.copy_(torch.where(varies, var.sqrt() + EPSILON, 1.0))


def _merged(
    mean: torch.Tensor,
    var: torch.Tensor,
    batch_mean: torch.Tensor,
    batch_var: torch.Tensor,
    share: torch.Tensor | float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of all samples, of which the batch is `share`."""
    delta = batch_mean - mean
    between = delta.square() * share * (1.0 - share)
    return mean + delta * share, var * (1.0 - share) + batch_var * share + between


def _moments(batch_NS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance [S] of N samples, float64, a part of the samples at a time."""
    rows = batch_NS.shape[0]
    size = max(1, CHUNK_BYTES // max(1, 8 * batch_NS[0].numel())) if rows else 1
    mean = var = torch.zeros(())
    done = 0
    for part in batch_NS.split(size):
        part_var, part_mean = torch.var_mean(part.double(), dim=0, correction=0)
        done += part.shape[0]
        if done == part.shape[0]:
            mean, var = part_mean, part_var
        else:
            mean, var = _merged(mean, var, part_mean, part_var, part.shape[0] / done)
    return mean, var
