"""One iteration's samples on the learner's device: W slots side by side, [T, N] with N = W * B.

Filled in the learner's main thread, read by the update.
"""

import torch

from isaac_hydra_ext.envs.vec_env import EnvSpec
from isaac_hydra_ext.rollout.buffer import Slot


class RolloutBatch:
    """Preallocated tensors; `load` overwrites them, so a slot is free again once it returns."""

    def __init__(
        self,
        spec: EnvSpec,
        num_collectors: int,
        steps_per_env: int,
        action_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate for `num_collectors` slots of [T, B]."""
        T, N = steps_per_env, num_collectors * spec.num_envs
        self._spec, self._device = spec, device

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.obs = {
            group: empty(T + 1, N, *s.shape, dtype=getattr(torch, s.dtype))
            for group, s in spec.obs.items()
        }
        self.action_TNA = empty(T, N, spec.action.dim, dtype=action_dtype)
        self.behavior_log_prob_TN = empty(T, N)
        self.reward_TN = empty(T, N)
        self.terminated_TN = empty(T, N, dtype=torch.bool)
        self.truncated_TN = empty(T, N, dtype=torch.bool)
        self.final_index = torch.empty(0, 2, dtype=torch.int64, device=device)
        self.final_obs: dict[str, torch.Tensor] = {}
        self.policy_versions: list[int] = []

    def load(self, slots: list[Slot]) -> None:
        """Copy the slots in, in worker order. Returns when the copies are done."""
        B = self._spec.num_envs
        index_parts, obs_parts = [], {group: [] for group in self._spec.obs}
        self.policy_versions = [int(slot.header["policy_version"][0]) for slot in slots]
        for w, slot in enumerate(slots):
            columns = slice(w * B, (w + 1) * B)
            for ours, theirs in (
                *((self.obs[group], slot.obs[group]) for group in self._spec.obs),
                (self.action_TNA, slot.action_TBA),
                (self.behavior_log_prob_TN, slot.behavior_log_prob_TB),
                (self.reward_TN, slot.reward_TB),
                (self.terminated_TN, slot.terminated_TB),
                (self.truncated_TN, slot.truncated_TB),
            ):
                ours[:, columns].copy_(theirs, non_blocking=True)
            if slot.final_index_C2 is not None:
                count = int(slot.header["final_count"][0])
                index = slot.final_index_C2[:count].clone()
                index[:, 1] += w * B
                index_parts.append(index)
                for group, parts in obs_parts.items():
                    parts.append(slot.final_obs[group][:count].clone())
        if index_parts:
            self.final_index = torch.cat(index_parts).to(self._device)
            self.final_obs = {g: torch.cat(p).to(self._device) for g, p in obs_parts.items()}
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    @property
    def obs_N(self) -> dict[str, torch.Tensor]:
        """Observations acted on, group -> [T * N, ...]; views."""
        return {group: obs[:-1].flatten(0, 1) for group, obs in self.obs.items()}
