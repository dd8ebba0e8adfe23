"""The weights on their way from the learner to the collectors: L + 1 versions in a ring.

The learner publishes from its process; workers load in theirs. Pacing keeps a reader and the
writer on different rows; the version written before and after each row proves it.
"""

import numpy as np
import torch

from isaac_hydra_ext.errors import WorkerError


def version_for(iteration: int, oldest: int, newest: int, deterministic: bool) -> int:
    """Return the version that collects a rollout.

    Args:
        iteration: k of the rollout.
        oldest: max(first, k - L), published already.
        newest: That this side knows to be published; it may be of a later iteration.
        deterministic: Whether timing must not matter (`rollout.deterministic`).
    """
    return oldest if deterministic else min(newest, iteration)


class WeightStore:
    """A ring of flat float32 vectors, each between two copies of its version.

    Versions are stored plus one: fresh memory, all zeros, then holds none.
    """

    def __init__(self, versions: np.ndarray, weights: torch.Tensor) -> None:
        """Wrap memory that `map` or `allocate` has cut: [L + 1, 2] and [L + 1, P]."""
        self._rows, self._versions, self._weights = len(versions), versions, weights

    @classmethod
    def map(cls, memory: np.ndarray, size: int, max_policy_lag: int) -> "WeightStore":
        """View shared memory of `nbytes(size, max_policy_lag)` bytes.

        Args:
            memory: uint8.
            size: P, the length of the flat vector.
            max_policy_lag: L.
        """
        rows = max_policy_lag + 1
        versions = memory[: 16 * rows].view(np.int64).reshape(rows, 2)
        weights = memory[16 * rows : (16 + 4 * size) * rows].view(np.float32)
        return cls(versions, torch.from_numpy(weights.reshape(rows, size)))

    @classmethod
    def allocate(cls, size: int, max_policy_lag: int, device: str) -> "WeightStore":
        """Make a store of the simulation's own memory (W = 0)."""
        rows = max_policy_lag + 1
        return cls(np.zeros((rows, 2), np.int64), torch.zeros(rows, size, device=device))

    @staticmethod
    def nbytes(size: int, max_policy_lag: int) -> int:
        """Return the bytes that a store needs."""
        return (max_policy_lag + 1) * (16 + 4 * size)

    def publish(self, version: int, flat: torch.Tensor) -> None:
        """Write one version, [P], over the oldest. Returns when it is there to be read."""
        row = version % self._rows
        self._versions[row, 0] = version + 1
        self._weights[row].copy_(flat)  # from a GPU to the host this waits for the copy
        self._versions[row, 1] = version + 1

    def load(self, version: int, flat: torch.Tensor) -> None:
        """Copy one version into `flat`, [P].

        Raises:
            WorkerError: The version is not there, or changed while it was read.
        """
        row = version % self._rows
        before = int(self._versions[row, 1]) - 1
        flat.copy_(self._weights[row])
        after = int(self._versions[row, 0]) - 1
        if not before == after == version:
            raise WorkerError(
                f"weights of version {version} are gone: found {before} before and {after} after "
                "reading; the pacing between learner and workers is broken"
            )
