"""The rollout buffer: where every byte of a rollout lies. Used on both sides of the block.

Learner and workers compute the same `BlockPlan` from the same few numbers, so that no address
ever travels. With W = 0 the same `Slot` is made of ordinary tensors on the simulation's device.

    block = | status of each worker | slots of worker 0 | slots of worker 1 | ... | weights |
    slot  = | header | obs groups | action | log-prob | reward | flags | final obs | envs | extra |
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from isaac_hydra_ext.envs.contract import EnvSpec

ALIGNMENT = 4096  # a page: slots never share one, and registered memory wants it
EXTRA_BYTES = 64 * 1024  # JSON: the env's log, and its state where it has one
EXTRA_BYTES_PER_ENV = 4096

# Written by whoever collects; times in seconds.
HEADER = np.dtype(
    [
        ("iteration", "<i8"),
        ("worker", "<i8"),
        ("generation", "<i8"),
        ("policy_version", "<i8"),
        ("final_count", "<i8"),
        ("extra_bytes", "<i8"),
        ("collect_s", "<f8"),
        ("wait_s", "<f8"),
    ]
)
# What a worker shows of itself: alive when, at which rollout, how many of its steps are done.
STATUS = np.dtype([("heartbeat_ns", "<i8"), ("iteration", "<i8"), ("steps", "<i8")])


@dataclass(frozen=True)
class Field:
    """One array of a slot; `offset` in bytes from the slot's start."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    nbytes: int


class SlotLayout:
    """The fields of one [T, B] slot.

    `obs/<group>` has T + 1 rows: row t is what the policy saw at step t, row T is the observation
    after the last step. `final_obs/<group>` are sparse rows whose (t, b) stand in `final_index`;
    the block has T * B rows, whose untouched pages cost nothing, so they are never pinned.
    `dropped` are envs whose steps are not to be learned from, `restarted` those whose next episode
    begins after this rollout.
    """

    def __init__(self, spec: EnvSpec, steps_per_env: int, action_dtype: torch.dtype) -> None:
        """Lay the fields out.

        Args:
            spec: Gives B, the obs groups and the action's size.
            steps_per_env: T.
            action_dtype: float32, or int64 for discrete actions.
        """
        T, B = steps_per_env, spec.num_envs
        self.spec, self.steps_per_env = spec, steps_per_env
        self.fields: dict[str, Field] = {}
        self._end = _align(HEADER.itemsize, 64)
        for group, tensor in spec.obs.items():
            self._add(f"obs/{group}", (T + 1, B, *tensor.shape), getattr(torch, tensor.dtype))
        self._add("action", (T, B, spec.action.dim), action_dtype)
        self._add("behavior_log_prob", (T, B), torch.float32)
        self._add("reward", (T, B), torch.float32)
        self._add("terminated", (T, B), torch.bool)
        self._add("truncated", (T, B), torch.bool)
        self.dense_nbytes = self._end  # from the slot's start; what is written in every rollout
        if spec.has_final_obs:
            self._add("final_index", (T * B, 2), torch.int64)
            for group, tensor in spec.obs.items():
                shape = (T * B, *tensor.shape)
                self._add(f"final_obs/{group}", shape, getattr(torch, tensor.dtype))
        self._add("dropped", (B,), torch.bool)
        self._add("restarted", (B,), torch.bool)
        extra = EXTRA_BYTES + (EXTRA_BYTES_PER_ENV * B if spec.has_state else 0)
        self._add("extra", (extra,), torch.uint8)
        self.nbytes = _align(self._end, ALIGNMENT)

    def _add(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        nbytes = math.prod(shape) * dtype.itemsize
        self.fields[name] = Field(shape, dtype, self._end, nbytes)
        self._end = _align(self._end + nbytes, 64)


@dataclass(frozen=True)
class StepRows:
    """A slot's fields cut into steps; making a view costs as much as writing a small one.

    Attributes:
        obs: Group -> T + 1 times [B, ...].
        action: T times [B, A].
        reward: T times [B], as the flags.
        terminated: See `reward`.
        truncated: See `reward`.
    """

    obs: dict[str, tuple[torch.Tensor, ...]]
    action: tuple[torch.Tensor, ...]
    reward: tuple[torch.Tensor, ...]
    terminated: tuple[torch.Tensor, ...]
    truncated: tuple[torch.Tensor, ...]


class Slot:
    """One rollout's memory, as tensors. Who may touch it is decided by messages, not here."""

    def __init__(self, header: np.ndarray, tensors: dict[str, torch.Tensor]) -> None:
        """Wrap memory that `map` or `allocate` has cut into fields."""
        self.header, self._tensors = header, tensors
        self.obs = _with_prefix(tensors, "obs/")  # group -> [T + 1, B, ...]
        self.action_TBA = tensors["action"]
        self.behavior_log_prob_TB = tensors["behavior_log_prob"]
        self.reward_TB = tensors["reward"]
        self.terminated_TB = tensors["terminated"]
        self.truncated_TB = tensors["truncated"]
        self.final_index_C2 = tensors.get("final_index")  # row -> (t, b)
        self.final_obs = _with_prefix(tensors, "final_obs/")  # group -> [C, ...]
        self.dropped_B = tensors["dropped"]  # on the host, as is all that follows
        self.restarted_B = tensors["restarted"]
        self._extra = tensors["extra"]

    @classmethod
    def map(cls, layout: SlotLayout, memory: np.ndarray) -> "Slot":
        """View a slot's bytes in the shared block."""
        header = memory[: HEADER.itemsize].view(HEADER)
        tensors = {}
        for name, f in layout.fields.items():
            raw = torch.from_numpy(memory[f.offset : f.offset + f.nbytes])
            tensors[name] = raw.view(f.dtype).view(f.shape)
        return cls(header, tensors)

    @classmethod
    def allocate(cls, layout: SlotLayout, device: str) -> "Slot":
        """Make a slot of ordinary tensors (W = 0, or on a GPU).

        It has room for one final observation an env, which `make_room` raises: memory of a GPU is
        taken whole.
        """
        on_host, tensors = ("dropped", "restarted", "extra"), {}
        for name, f in layout.fields.items():
            shape = (layout.spec.num_envs, *f.shape[1:]) if name.startswith("final_") else f.shape
            where = "cpu" if name in on_host else device
            tensors[name] = torch.empty(shape, dtype=f.dtype, device=where)
        return cls(np.zeros(1, HEADER), tensors)

    def make_room(self, finals: int) -> None:
        """Have room for so many final observations; those that are there stay."""
        assert self.final_index_C2 is not None
        room = len(self.final_index_C2)
        if finals <= room:
            return
        with torch.inference_mode(False):  # a collector acts in it, who reads the slot does not
            for name in [name for name in self._tensors if name.startswith("final_")]:
                old = self._tensors[name]
                self._tensors[name] = old.new_empty((2 * finals, *old.shape[1:]))
                self._tensors[name][:room] = old
        self.final_index_C2 = self._tensors["final_index"]
        self.final_obs = _with_prefix(self._tensors, "final_obs/")

    def copy_from(self, other: "Slot") -> None:
        """Take a whole rollout over from a slot on a GPU; returns when it is all here."""
        self.header[:] = other.header
        finals, extra = int(self.header["final_count"][0]), int(self.header["extra_bytes"][0])
        for name, ours in self._tensors.items():
            rows = finals if name.startswith("final_") else extra if name == "extra" else len(ours)
            ours[:rows].copy_(other._tensors[name][:rows], non_blocking=True)
        if other.reward_TB.is_cuda:
            torch.cuda.current_stream(other.reward_TB.device).synchronize()

    @cached_property
    def rows(self) -> StepRows:
        """The fields step by step; the side that writes asks for them."""
        return StepRows(
            {group: obs.unbind(0) for group, obs in self.obs.items()},
            self.action_TBA.unbind(0),
            self.reward_TB.unbind(0),
            self.terminated_TB.unbind(0),
            self.truncated_TB.unbind(0),
        )

    @property
    def dropped_samples(self) -> int:
        """Transitions of this rollout that are not to be learned from."""
        return int(self.dropped_B.sum()) * self.reward_TB.shape[0]

    def write_extra(self, extra: dict[str, Any]) -> None:
        """Store JSON-ready data beside the rollout. What does not fit is left out and named."""
        data = json.dumps(extra).encode()
        if len(data) > self._extra.numel():
            share = self._extra.numel() // (2 * len(extra))
            fits = {key: value for key, value in extra.items() if len(json.dumps(value)) < share}
            sizes = {k: len(json.dumps(v)) for k, v in extra.items() if k not in fits}
            data = json.dumps({**fits, "too_large": sizes}).encode()
        self._extra[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.header["extra_bytes"] = len(data)

    def read_extra(self) -> dict[str, Any]:
        """Return what `write_extra` stored."""
        return json.loads(self._extra[: int(self.header["extra_bytes"][0])].numpy().tobytes())


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
        return _align(STATUS.itemsize * self.num_workers, ALIGNMENT)

    @property
    def _weights_offset(self) -> int:
        slots = self.num_workers * self.slots_per_worker
        return self._slots_offset + slots * self.layout.nbytes

    @property
    def nbytes(self) -> int:
        """Size of the whole block."""
        return _align(self._weights_offset + self.weights_nbytes, ALIGNMENT)

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


def _align(n: int, to: int) -> int:
    return -(-n // to) * to


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
