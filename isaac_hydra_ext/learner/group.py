"""What ranks of a data-parallel learner must agree on goes through here. Runs in each rank.

A rank is one process that learns from rollouts of its own; gradients and statistics are those of
all ranks together, so that the weights are the same bits on each. One process is a group of one.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from isaac_hydra_ext.models.normalizer import Moments


class Group(Protocol):
    """The ranks that learn together. All call the same methods in the same order.

    What is given tensors works on the device, without the host waiting for it, so that it can be
    part of a CUDA graph, and raises `RankError` where it finds that a rank has gone.

    Attributes:
        rank: Of this process, from 0.
        size: How many ranks there are.
    """

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that prints, saves and publishes."""
        return self.rank == 0

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Add `x` over all ranks, in place; returns it."""
        ...

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Average `x` over all ranks, in place; returns it. NaN or Inf on one is so on all."""
        ...

    def broadcast(self, x: torch.Tensor) -> torch.Tensor:
        """Overwrite `x` with the first rank's, in place; returns it."""
        ...

    def mean_of_samples(self, x: torch.Tensor, rows: int) -> torch.Tensor:
        """Average a vector of means [K] over all ranks' samples, in place; returns it.

        One collective. Where an env was left out a rank has fewer samples than the others.

        Args:
            x: Means over this rank's samples; of none they count for nothing, NaN though they are.
            rows: How many samples this rank has.
        """
        weighted = x * rows if rows else torch.zeros_like(x)
        weighted = self.sum(torch.cat([weighted, x.new_full((1,), rows)]))
        return x.copy_(weighted[:-1] / weighted[-1])

    def check(self) -> None:
        """Raise if a rank has gone: what the device has computed since then is worth nothing.

        Raises:
            RankError: It says which, and why where that is known.
        """

    def exchange(self, data: Any) -> list[Any]:
        """Return what each rank gives, in their order. The host waits for the last one.

        Args:
            data: JSON-ready.

        Raises:
            RankError: A rank has gone.
        """
        ...


class OneProcess(Group):
    """A learner that is alone."""

    rank, size = 0, 1

    def mean_of_samples(self, x: torch.Tensor, rows: int) -> torch.Tensor:
        return x

    def exchange(self, data: Any) -> list[Any]:
        return [data]

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def broadcast(self, x: torch.Tensor) -> torch.Tensor:
        return x


def on_any(group: Group, flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return whether each of the flags is set on any rank. With several, the host waits for them.

    Args:
        group: The ranks.
        flags: This rank's.
        device: The learner's.
    """
    if group.size == 1:
        return [*flags]
    counts = group.sum(torch.tensor(flags, dtype=torch.float32, device=device))
    return [count > 0 for count in counts.tolist()]


def combined(group: Group, rows: int, mean: torch.Tensor, var: torch.Tensor) -> Moments:
    """Return the moments of all ranks' samples together (Chan et al. 1979).

    Ranks may have different numbers of samples. Alone, every bit stays as it is.

    Args:
        group: The ranks.
        rows: How many samples this rank has.
        mean: Of them.
        var: Of them, not corrected.
    """
    # A fill and no copy from the host: this may be part of a CUDA graph.
    total = group.sum(torch.full((), rows, dtype=torch.float64, device=mean.device))
    share = (rows / total).to(mean.dtype)
    mean_of_all = group.sum(mean * share)
    var_of_all = group.sum((var + (mean - mean_of_all).square()) * share)
    return total, mean_of_all, var_of_all
