"""The shared block as plain numbers, for those who copy its parts and know no field of it.

Used by the relay and by the hosts of remote workers, which import no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isaac_hydra_ext.errors import WorkerError

STATUS_FIELDS = 3  # int64: heartbeat_ns, iteration, steps


@dataclass(frozen=True)
class BlockNumbers:
    """Where what is copied lies, in bytes; it travels as JSON in ATTACH.

    Attributes:
        nbytes: Of the whole block, the same on each machine.
        slots: Where worker 0's first slot begins.
        slots_per_worker: L + 1.
        slot_nbytes: Of one slot.
        dense: Bytes from a slot's start that each rollout fills.
        rows: (offset in the slot, bytes a row, rows) of what is as long as there are final
            observations.
        flags: (offset in the slot, bytes): `dropped` and `restarted`.
        extra: (offset in the slot, bytes): JSON, as long as the header says.
        counts: Where in the slot the numbers of final observations and of JSON's bytes are.
        weights: Where the ring begins: [L + 1, 2] versions, then [L + 1, P] float32.
        weights_size: P.
    """

    nbytes: int
    slots: int
    slots_per_worker: int
    slot_nbytes: int
    dense: int
    rows: Sequence[Sequence[int]]
    flags: Sequence[int]
    extra: Sequence[int]
    counts: Sequence[int]
    weights: int
    weights_size: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "BlockNumbers":
        """Read what `to_json` returned."""
        return cls(**data)


class FarBlock:
    """A mapped block and its numbers."""

    def __init__(self, numbers: BlockNumbers, memory: np.ndarray) -> None:
        """View `memory`, uint8 of at least `numbers.nbytes`."""
        self._numbers, self._memory = numbers, memory
        n = numbers
        rows, ring = n.slots_per_worker, memory[n.weights :]
        self._versions = ring[: 16 * rows].view(np.int64).reshape(rows, 2)
        weights = ring[16 * rows : (16 + 4 * n.weights_size) * rows]
        self._weights = weights.reshape(rows, 4 * n.weights_size)

    @property
    def versions_kept(self) -> int:
        """L + 1: of weights."""
        return len(self._versions)

    def status(self, worker: int) -> np.ndarray:
        """Return a worker's record, int64: when its heart beat [ns], iteration, steps."""
        nbytes = 8 * STATUS_FIELDS
        return self._memory[worker * nbytes : (worker + 1) * nbytes].view(np.int64)

    def rollout(self, worker: int, slot: int) -> list[np.ndarray]:
        """Return the parts of a slot that its rollout has filled, as its header says."""
        memory = self._slot(worker, slot)
        return self._parts(memory, memory)

    def write_rollout(self, worker: int, slot: int, parts: Sequence[np.ndarray]) -> int:
        """Copy what `rollout` returned elsewhere into the slot it stands for.

        Returns:
            The bytes copied.

        Raises:
            WorkerError: It is no rollout of this layout; nothing outside of the slot is written.
        """
        n = self._numbers
        if not parts or parts[0].nbytes != n.dense:
            raise WorkerError(f"worker {worker}: sent a rollout of another layout")
        ours = self._parts(self._slot(worker, slot), parts[0])
        if [part.nbytes for part in ours] != [part.nbytes for part in parts]:
            raise WorkerError(f"worker {worker}: sent a rollout of another layout")
        for mine, theirs in zip(ours, parts, strict=True):
            mine[:] = theirs
        return sum(part.nbytes for part in parts)

    def weights(self, version: int) -> np.ndarray | None:
        """Return a version's bytes in the ring, None if they are not there."""
        row = version % len(self._versions)
        return self._weights[row] if (self._versions[row] == version + 1).all() else None

    def write_weights(self, version: int, weights: np.ndarray) -> None:
        """Write one version over the oldest, as `WeightStore.publish` does."""
        row = version % len(self._versions)
        self._versions[row, 0] = version + 1
        self._weights[row] = weights
        self._versions[row, 1] = version + 1

    def _slot(self, worker: int, slot: int) -> np.ndarray:
        n = self._numbers
        if not 0 <= slot < n.slots_per_worker:
            raise WorkerError(f"worker {worker}: named slot {slot} of {n.slots_per_worker}")
        first = n.slots + (worker * n.slots_per_worker + slot) * n.slot_nbytes
        return self._memory[first : first + n.slot_nbytes]

    def _parts(self, slot: np.ndarray, header: np.ndarray) -> list[np.ndarray]:
        n = self._numbers
        finals, extra = (int(header[at : at + 8].view(np.int64)[0]) for at in n.counts)
        parts = [slot[: n.dense]]
        for offset, row, capacity in n.rows:
            parts.append(slot[offset : offset + row * min(max(finals, 0), capacity)])
        offset, nbytes = n.flags
        parts.append(slot[offset : offset + nbytes])
        offset, capacity = n.extra
        parts.append(slot[offset : offset + min(max(extra, 0), capacity)])
        return parts
