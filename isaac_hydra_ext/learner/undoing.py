"""What every algorithm does about an update that failed. Runs in the learner's process."""

from collections.abc import Mapping

import torch

from isaac_hydra_ext.errors import NonFiniteError


def check_samples(samples: int, iteration: int) -> None:
    """Refuse an iteration without a sample.

    Raises:
        NonFiniteError: Says so.
    """
    if not samples:
        raise NonFiniteError(
            f"iteration {iteration}: every env has been left out for NaN or Inf "
            "(rollout.on_invalid=drop_env): nothing is left to learn from; see nan_dump/"
        )


class BadUpdates:
    """Counts updates in a row that were undone for NaN or Inf."""

    def __init__(self, most: int, hint: str) -> None:
        """Begin with none.

        Args:
            most: `ppo.max_bad_updates`; one more ends the run.
            hint: What to look for then.
        """
        self._most, self._hint, self._in_a_row = most, hint, 0

    def forget(self) -> None:
        """Begin anew, after a good one."""
        self._in_a_row = 0

    def count(self, iteration: int) -> None:
        """Count one that has been undone.

        Raises:
            NonFiniteError: It is one too many.
        """
        self._in_a_row += 1
        if self._in_a_row > self._most:
            raise NonFiniteError(
                f"iteration {iteration}: non-finite loss or gradient in {self._in_a_row} updates "
                f"in a row (ppo.max_bad_updates={self._most}); they were undone and the weights "
                f"are the last good ones; look for huge values in {self._hint}"
            )


def copy_each(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into those of the same name."""
    for name, tensor in ours.items():
        tensor.copy_(theirs[name])


def copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies by name."""
    return {name: tensor.clone() for name, tensor in tensors.items()}
