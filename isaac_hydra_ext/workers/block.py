"""The block of memory that learner and workers share. Used on both of its sides.

block = | status of each worker | slots of worker 0 | slots of worker 1 | ... | weights |
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isaac_hydra_ext.rollout.layout import HEADER, PAGE, SlotLayout, align
from isaac_hydra_ext.rollout.slot import Slot

if TYPE_CHECKING:
    from isaac_hydra_ext.workers.far_block import BlockNumbers

# What a worker shows of itself: alive when, at which rollout, how many of its steps are done.
STATUS = np.dtype([("heartbeat_ns", "<i8"), ("iteration", "<i8"), ("steps", "<i8")])


@dataclass(frozen=True)
class BlockPlan:
    """Where the parts of the shared block begin. Plain numbers plus the layout.

    Attributes:
        layout: Of one slot.
        num_workers: W.
        slots_per_worker: L + 1.
        weights_nbytes: Of the weight ring.
    """

    layout: SlotLayout
    num_workers: int
    slots_per_worker: int
    weights_nbytes: int

    @property
    def _slots_offset(self) -> int:
        return align(STATUS.itemsize * self.num_workers, PAGE)

    @property
    def _weights_offset(self) -> int:
        slots = self.num_workers * self.slots_per_worker
        return self._slots_offset + slots * self.layout.nbytes

    @property
    def nbytes(self) -> int:
        """Size of the whole block."""
        return align(self._weights_offset + self.weights_nbytes, PAGE)

    def status(self, block: np.ndarray) -> np.ndarray:
        """Return the workers' status records, `STATUS` [W]."""
        return block[: STATUS.itemsize * self.num_workers].view(STATUS)

    def slots(self, block: np.ndarray, worker: int) -> list[Slot]:
        """Return the L + 1 slots of one worker."""
        memory = self.memory_of(block, worker)
        return [Slot.map(self.layout, part) for part in self._cut(memory)]

    def memory_of(self, block: np.ndarray, worker: int) -> np.ndarray:
        """Return the bytes of one worker's slots."""
        size = self.slots_per_worker * self.layout.nbytes
        first = self._slots_offset + worker * size
        return block[first : first + size]

    def copied(self, block: np.ndarray, workers: Sequence[int]) -> list[np.ndarray]:
        """Return what a GPU copies from or to: these workers' dense fields, and the weights."""
        slots = [part for worker in workers for part in self._cut(self.memory_of(block, worker))]
        return [*(slot[: self.layout.dense_nbytes] for slot in slots), self.weights(block)]

    def _cut(self, memory: np.ndarray) -> Iterator[np.ndarray]:
        for index in range(self.slots_per_worker):
            yield memory[index * self.layout.nbytes : (index + 1) * self.layout.nbytes]

    def weights(self, block: np.ndarray) -> np.ndarray:
        """Return the weight ring's bytes."""
        return block[self._weights_offset : self._weights_offset + self.weights_nbytes]

    def numbers(self, weights_size: int) -> "BlockNumbers":
        """Return what a relay needs to copy the rollouts and weights of other machines' workers.

        Args:
            weights_size: P.
        """
        from isaac_hydra_ext.workers.far_block import BlockNumbers  # not in each worker

        layout, fields = self.layout, self.layout.fields
        finals = [f for name, f in fields.items() if name.startswith("final_")]
        dropped, restarted, extra = fields["dropped"], fields["restarted"], fields["extra"]
        offsets = HEADER.fields
        assert offsets is not None
        return BlockNumbers(
            nbytes=self.nbytes,
            slots=self._slots_offset,
            slots_per_worker=self.slots_per_worker,
            slot_nbytes=layout.nbytes,
            dense=layout.dense_nbytes,
            rows=[(f.offset, f.nbytes // f.shape[0], f.shape[0]) for f in finals],
            flags=(dropped.offset, restarted.offset + restarted.nbytes - dropped.offset),
            extra=(extra.offset, extra.nbytes),
            counts=(offsets["final_count"][1], offsets["extra_bytes"][1]),
            weights=self._weights_offset,
            weights_size=weights_size,
        )
