"""One rollout's memory, as tensors: of the shared block, or of the simulation's own device.

Used wherever a rollout is written or read. Who may touch a slot is decided by messages, not here.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from isaac_hydra_ext.models.policy import FRAMES
from isaac_hydra_ext.rollout.layout import HEADER, SlotLayout


@dataclass(frozen=True)
class StepRows:
    """A slot's fields cut into steps; making a view costs as much as writing a small one.

    Attributes:
        obs: Group -> T + 1 times [B, ...].
        action: T times [B, A].
        fields: Name -> T times [B, ...].
        reward: T times [B], as the flags.
        terminated: See `reward`.
        truncated: See `reward`.
    """

    obs: dict[str, tuple[torch.Tensor, ...]]
    action: tuple[torch.Tensor, ...]
    fields: dict[str, tuple[torch.Tensor, ...]]
    reward: tuple[torch.Tensor, ...]
    terminated: tuple[torch.Tensor, ...]
    truncated: tuple[torch.Tensor, ...]


class Slot:
    """One rollout's memory, as tensors. Who may touch it is decided by messages, not here."""

    def __init__(self, header: np.ndarray, tensors: dict[str, torch.Tensor]) -> None:
        """Wrap memory that `map` or `allocate` has cut into fields."""
        self.header, self._tensors = header, tensors
        # Image groups of all slots of this process, [S, ...] of `frames`, and which of S this is.
        self.side_by_side: dict[str, torch.Tensor] = {}
        self.place = 0
        self.frames = _with_prefix(tensors, "obs/")  # group -> [K - 1 + T + 1, B, ...]
        steps = tensors["reward"].shape[0] + 1
        self.obs = {group: x[len(x) - steps :] for group, x in self.frames.items()}  # [T + 1, ...]
        self.action_TBA = tensors["action"]
        self.behavior_log_prob_TB = tensors["behavior_log_prob"]
        self.reward_TB = tensors["reward"]
        self.terminated_TB = tensors["terminated"]
        self.truncated_TB = tensors["truncated"]
        self.fields = _with_prefix(tensors, "field/")  # name -> [T, B, ...]
        self.state = _with_prefix(tensors, "state/")  # name -> [B, ...]
        for group, frames in self.frames.items():
            if past := len(frames) - steps:
                self.state[f"{FRAMES}{group}"] = frames[:past].transpose(0, 1)
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
    def allocate(
        cls, layout: SlotLayout, device: str, images: Mapping[str, torch.Tensor] | None = None
    ) -> "Slot":
        """Make a slot of ordinary tensors (W = 0, or on a GPU), around the images that are given.

        It has room for one final observation an env, which `make_room` raises: memory of a GPU is
        taken whole.
        """
        on_host = ("dropped", "restarted", "extra")
        tensors = {f"obs/{group}": x for group, x in (images or {}).items()}
        for name, f in layout.fields.items():
            if name in tensors:
                continue
            shape = (layout.spec.num_envs, *f.shape[1:]) if name.startswith("final_") else f.shape
            where = "cpu" if name in on_host else device
            tensors[name] = torch.empty(shape, dtype=f.dtype, device=where)
        return cls(np.zeros(1, HEADER), tensors)

    @classmethod
    def allocate_all(cls, layout: SlotLayout, device: str, count: int) -> "list[Slot]":
        """Make several; each image group of all of them is one tensor, from which they are read."""
        images = {}
        for group in layout.images:
            f = layout.fields[f"obs/{group}"]
            images[group] = torch.empty((count, *f.shape), dtype=f.dtype, device=device)
        slots = []
        for place in range(count):
            slot = cls.allocate(layout, device, {g: x[place] for g, x in images.items()})
            slot.side_by_side, slot.place = images, place
            slots.append(slot)
        return slots

    def make_room(self, finals: int) -> None:
        """Have room for so many final observations; those that are there stay."""
        assert self.final_index_C2 is not None
        room = len(self.final_index_C2)
        if finals <= room:
            return
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
            {name: field.unbind(0) for name, field in self.fields.items()},
            self.reward_TB.unbind(0),
            self.terminated_TB.unbind(0),
            self.truncated_TB.unbind(0),
        )

    @property
    def dropped_samples(self) -> int:
        """Transitions of this rollout that are not to be learned from."""
        return int(self.dropped_B.sum()) * self.reward_TB.shape[0]

    def is_finite(self, groups: Collection[str], steps: int) -> bool:
        """Return whether all numbers of the rollout are finite, as float32.

        Args:
            groups: Obs groups that the networks read; the others may hold what they like.
            steps: That were done: T, or fewer where the env raised in the one after.
        """
        # A sum is finite only if all its terms are. One that overflows is looked at, and is fine.
        entries = [*self.numbers(groups, steps), *self.final_numbers(groups)]
        sums = [x.sum(dtype=torch.float32) for _, x in entries]
        return bool(torch.isfinite(torch.stack(sums)).all())

    def constant(self, groups: Collection[str]) -> list[str]:
        """Return those of the groups that are the same in all steps and envs of the rollout."""
        obs = {group: self.obs[group] for group in groups}
        return [g for g, x in obs.items() if torch.equal(x.amin((0, 1)), x.amax((0, 1)))]

    def numbers(self, groups: Collection[str], steps: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the fields that hold floats, [S, B, ...]; an action may have no reward yet."""
        for group, obs in self.obs.items():
            if group in groups and obs.is_floating_point():
                yield f"obs/{group}", obs[: steps + 1]
        if self.action_TBA.is_floating_point():
            yield "action", self.action_TBA[: steps + 1]
        yield "action log-prob", self.behavior_log_prob_TB[: steps + 1]
        yield "reward", self.reward_TB[:steps]

    def final_numbers(self, groups: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the final observations that hold floats, [C, ...]."""
        count = int(self.header["final_count"][0])
        for group, obs in self.final_obs.items():
            if group in groups and obs.is_floating_point():
                yield f"final_obs/{group}", obs[:count]

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


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
