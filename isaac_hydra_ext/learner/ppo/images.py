"""An image group of an iteration, learned from where it lies. Runs in the learner's process.

A rollout of pictures is the largest thing there is in a run, so it exists once. Where the slots are
on the learner's device, their memory is read; it is the learner's until the update is over. Where
they are on another one, host memory beside a GPU, each picture is copied there once, in its dtype.
"""

from collections.abc import Sequence

import torch

from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.models.policy import SEEN
from isaac_hydra_ext.models.stacks import steps_back
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
        self._own: torch.Tensor | None = None  # [W, rows, B, ...], where slots are elsewhere
        self._parts: list[torch.Tensor] = []  # [R, ...] each; row (K - 1 + t) * B + b of a slot's
        # What a captured update reads: which of the slots that lie side by side.
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._columns: torch.Tensor | None = None  # [N] of W * B; None: all
        self._num_columns = self._envs = 1
        self._stack = 1  # K
        self._seen = torch.zeros(0, dtype=torch.int64, device=device)  # [T + 1, W * B]

    def load(self, slots: Sequence[Slot], kept: Sequence[torch.Tensor | None]) -> None:
        """Take over where an iteration's pictures are.

        Args:
            slots: In worker order.
            kept: Of each slot, the envs that are learned from; None: all.
        """
        pictures = [slot.frames[self._group] for slot in slots]
        (rows, B), (T, _) = pictures[0].shape[:2], slots[0].reward_TB.shape
        if not self.placed:
            self._stack = rows - T
            self.nbytes *= self._stack
        self._envs, self._rows_of_part, first = B, rows * B, 0
        side_by_side = slots[0].side_by_side.get(self._group)
        if pictures[0].device != self._device:
            self._parts = [self._copied(pictures).flatten(0, 2)]
        elif len(slots) == 1 and side_by_side is not None:
            self._parts, first = [side_by_side.flatten(0, 2)], slots[0].place * rows * B
        else:
            self._parts = [x.flatten(0, 1) for x in pictures]
        self._first.fill_(first)
        self._columns, self._num_columns = None, len(slots) * B
        if any(envs is not None for envs in kept):
            all_envs = torch.arange(B)
            columns = [w * B + (all_envs if e is None else e.cpu()) for w, e in enumerate(kept)]
            self._columns = torch.cat(columns).to(self._device)
            self._num_columns = len(self._columns)
        if self._stack > 1:
            seen = torch.cat([_seen(slot, self._stack).to(self._device) for slot in slots], dim=1)
            if self._seen.shape != seen.shape:  # once: what is captured reads it
                self._seen = torch.empty_like(seen)
            self._seen.copy_(seen)
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
        """Return the pictures [M, ...], or their stacks [M, K, ...], of rows t * N + n."""
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=self._device)
        step, column = self._place(rows)
        if self._stack == 1:
            return self._taken(step, column)
        back_MK = steps_back(self._seen[step, column], self._stack)
        stacks = self._taken(
            (step.unsqueeze(1) - back_MK).flatten(), column.repeat_interleave(self._stack)
        )
        return stacks.unflatten(0, back_MK.shape)

    def with_past(self, final_FX: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return final observations as they are seen: [F, ...], or stacks [F, K, ...].

        Args:
            final_FX: What the episodes ended with.
            rows: [F] t * N + n of the steps that ended them; what is beyond holds nothing.
        """
        if self._stack == 1:
            return final_FX
        step, column = self._place(rows)
        # One step further back than the picture that the step answered, but for the newest.
        back_FP = steps_back(self._seen[step, column], self._stack - 1)
        past = self._taken(
            (step.unsqueeze(1) - back_FP).flatten(), column.repeat_interleave(self._stack - 1)
        ).unflatten(0, back_FP.shape)
        return torch.cat([past, final_FX.unsqueeze(1)], dim=1)

    def _place(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the steps of rows, and the columns among all W * B."""
        step, column = rows // self._num_columns, rows % self._num_columns
        return step, column if self._columns is None else self._columns[column]

    def _taken(self, step: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Gather pictures by step, which is negative before the rollout, and column."""
        worker, env = column // self._envs, column % self._envs
        row = (step + self._stack - 1) * self._envs + env
        if len(self._parts) == 1:
            return self._parts[0].index_select(0, self._first + worker * self._rows_of_part + row)
        # Slots of several processes, on a CPU.
        out = self._parts[0].new_empty((len(row), *self._parts[0].shape[1:]))
        for index, part in enumerate(self._parts):
            of_part = (worker == index).nonzero().squeeze(1)
            out.index_copy_(0, of_part, part.index_select(0, row[of_part]))
        return out


def _seen(slot: Slot, stack: int) -> torch.Tensor:
    """Return how many of the K - 1 pictures before each step are of its episode, [T + 1, B]."""
    ended_TB = slot.terminated_TB | slot.truncated_TB
    step_T1 = torch.arange(1, len(ended_TB) + 1, device=ended_TB.device).unsqueeze(1)
    first_TB = torch.where(ended_TB, step_T1, -stack)
    firsts = torch.cat([-slot.state[SEEN].unsqueeze(0), first_TB]).cummax(0).values
    steps = torch.arange(len(firsts), device=firsts.device).unsqueeze(1)
    return (steps - firsts).clamp(max=stack - 1)


Rows = torch.Tensor | Images  # [N, ...], read by indices or a slice
