"""Which arrays a rollout consists of, and where each lies. Used wherever one is written or read.

Learner and workers compute the same layout from the same few numbers, so that no address ever
travels. With W = 0 the same fields are ordinary tensors on the simulation's device.

    slot = | header | obs groups | action | log-prob | reward | flags | the policy's own fields
           | final obs | envs | extra |
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.models.past import no_past
from isaac_hydra_ext.models.policy import FRAMES, Policy
from isaac_hydra_ext.rollout.remembered import json_bytes

PAGE = 4096  # bytes: slots never share a page, and registered memory wants whole ones
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
    after the last step; of pictures that are seen in stacks, K - 1 earlier ones lie before row 0.
    `field/<name>` has a row a step of what the policy records besides its
    action, `state/<name>` what it remembered before the first step. `final_obs/<group>` are sparse
    rows whose (t, b) stand in `final_index`; the block has T * B rows, whose untouched pages cost
    nothing, so they are never pinned.
    `dropped` are envs whose steps are not to be learned from, `restarted` those whose next episode
    begins after this rollout.
    """

    def __init__(
        self,
        spec: EnvSpec,
        steps_per_env: int,
        action_dtype: torch.dtype,
        fields: Mapping[str, TensorSpec] | None = None,
        state: Mapping[str, TensorSpec] | None = None,
        images: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        """Lay the fields out.

        Args:
            spec: Gives B, the obs groups and the action's size.
            steps_per_env: T.
            action_dtype: float32, or int64 for discrete actions.
            fields: `Policy.fields`.
            state: Of one env's `Policy.initial_state` and `initial_critic_state`, and `no_past`.
            images: `Policy.images`.
        """
        T, B = steps_per_env, spec.num_envs
        self.spec, self.steps_per_env, self.images = spec, steps_per_env, dict(images or {})
        obs, state = {**spec.obs, **self.images}, state or {}
        self.fields: dict[str, Field] = {}
        self._end = align(HEADER.itemsize, 64)
        for group, tensor in obs.items():
            past = state[f"{FRAMES}{group}"].shape[0] if f"{FRAMES}{group}" in state else 0
            rows = past + T + 1
            self._add(f"obs/{group}", (rows, B, *tensor.shape), getattr(torch, tensor.dtype))
        self._add("action", (T, B, spec.action.dim), action_dtype)
        self._add("behavior_log_prob", (T, B), torch.float32)
        self._add("reward", (T, B), torch.float32)
        self._add("terminated", (T, B), torch.bool)
        self._add("truncated", (T, B), torch.bool)
        for name, tensor in (fields or {}).items():
            self._add(f"field/{name}", (T, B, *tensor.shape), getattr(torch, tensor.dtype))
        for name, tensor in state.items():
            if name.startswith(FRAMES):
                continue  # in front of its group's pictures
            self._add(f"state/{name}", (B, *tensor.shape), getattr(torch, tensor.dtype))
        self.dense_nbytes = self._end  # from the slot's start; what is written in every rollout
        if spec.has_final_obs:
            self._add("final_index", (T * B, 2), torch.int64)
            for group, tensor in obs.items():
                shape = (T * B, *tensor.shape)
                self._add(f"final_obs/{group}", shape, getattr(torch, tensor.dtype))
        self._add("dropped", (B,), torch.bool)
        self._add("restarted", (B,), torch.bool)
        extra = EXTRA_BYTES + (EXTRA_BYTES_PER_ENV * B if spec.has_state else 0)
        if spec.whole_state:
            extra += B * sum(json_bytes(tensor) for tensor in state.values())
        self._add("extra", (extra,), torch.uint8)
        self.nbytes = align(self._end, PAGE)

    @classmethod
    def of(cls, spec: EnvSpec, steps_per_env: int, policy: Policy) -> "SlotLayout":
        """Lay out a slot for what a policy reads and records."""
        fresh = {**policy.initial_state(1), **policy.initial_critic_state(1)}
        fresh |= no_past(policy, spec, 1)
        state = {name: TensorSpec.of(x) for name, x in fresh.items()}
        dtype = policy.distribution.action_dtype
        return cls(spec, steps_per_env, dtype, policy.fields, state, policy.images)

    def _add(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        nbytes = math.prod(shape) * dtype.itemsize
        self.fields[name] = Field(shape, dtype, self._end, nbytes)
        self._end = align(self._end + nbytes, 64)


def align(n: int, to: int) -> int:
    """Round up to a multiple of `to`."""
    return -(-n // to) * to
