"""An image group of an iteration, learned from where it lies. Runs in the learner's process.

A rollout of pictures is the largest thing there is in a run, so it exists once. Where the slots are
on the learner's device, their memory is read; it is the learner's until the update is over. Where
they are on another one, host memory beside a GPU, each picture is copied there once, in its dtype.
"""

from collections.abc import Sequence

import torch

from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.rollout.slot import Slot


class Images:
    """Reads as a tensor [(T + 1) * N, ...] does: by indices, or a slice. Nothing is copied before.

    Attributes:
        placed: Where the pictures lie is known: `load` has been called.
        nbytes: Of one picture as float32.
    """

    def __init__(self, group: str, spec: TensorSpec, device: torch.device) -> None:
        """Know no picture yet.

        Args:
            group: Its name in the slots.
            spec: Of one picture, as the slots hold it.
            device: The learner's.
        """
        self._group, self._device = group, device
        self.placed = False
        self.nbytes = 4 * max(1, torch.Size(spec.shape).numel())
        self._own: torch.Tensor | None = None  # [W, T + 1, B, ...], where slots are elsewhere
        self._parts: list[torch.Tensor] = []  # [R, ...] each; row t * B + b of a slot's pictures
        # What a captured update reads: which of the slots that lie side by side.
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._columns: torch.Tensor | None = None  # [N] of W * B; None: all
        self._num_columns = self._envs = 1

    def load(self, slots: Sequence[Slot], kept: Sequence[torch.Tensor | None]) -> None:
        """Take over where an iteration's pictures are.

        Args:
            slots: In worker order.
            kept: Of each slot, the envs that are learned from; None: all.
        """
        pictures = [slot.obs[self._group] for slot in slots]
        T1, B = pictures[0].shape[:2]
        self._envs, first = B, 0
        side_by_side = slots[0].side_by_side.get(self._group)
        if pictures[0].device != self._device:
            self._parts = [self._copied(pictures).flatten(0, 2)]
        elif len(slots) == 1 and side_by_side is not None:
            self._parts, first = [side_by_side.flatten(0, 2)], slots[0].place * T1 * B
        else:
            self._parts = [x.flatten(0, 1) for x in pictures]
        self._first.fill_(first)
        self._rows_of_part = T1 * B
        self._columns, self._num_columns = None, len(slots) * B
        if any(envs is not None for envs in kept):
            all_envs = torch.arange(B)
            columns = [w * B + (all_envs if e is None else e.cpu()) for w, e in enumerate(kept)]
            self._columns = torch.cat(columns).to(self._device)
            self._num_columns = len(self._columns)
        self.placed = True

    def _copied(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """Copy to the learner's device, into memory that is made once."""
        if self._own is None:
            shape, dtype = (len(pictures), *pictures[0].shape), pictures[0].dtype
            self._own = torch.empty(shape, dtype=dtype, device=self._device)
        for ours, theirs in zip(self._own, pictures, strict=True):
            ours.copy_(theirs, non_blocking=True)
        return self._own

    def __getitem__(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """Return the pictures [M, ...] of rows t * N + n."""
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=self._device)
        step, column = rows // self._num_columns, rows % self._num_columns
        if self._columns is not None:
            column = self._columns[column]
        worker, env = column // self._envs, column % self._envs
        row = step * self._envs + env
        if len(self._parts) == 1:
            return self._parts[0].index_select(0, self._first + worker * self._rows_of_part + row)
        # Slots of several processes, on a CPU.
        out = self._parts[0].new_empty((len(rows), *self._parts[0].shape[1:]))
        for index, part in enumerate(self._parts):
            of_part = (worker == index).nonzero().squeeze(1)
            out.index_copy_(0, of_part, part.index_select(0, row[of_part]))
        return out


Rows = torch.Tensor | Images  # [N, ...], read by indices or a slice
