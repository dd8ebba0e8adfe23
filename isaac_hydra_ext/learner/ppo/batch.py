"""One iteration's samples on the learner's device: W slots side by side, [T, N] with N = W * B.

Filled in the learner's main thread, read by the update.
"""

from collections.abc import Mapping

import torch

from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.learner.ppo.images import Images
from isaac_hydra_ext.models.past import PAST
from isaac_hydra_ext.models.policy import Sequences, State
from isaac_hydra_ext.rollout.slot import Slot


class RolloutBatch:
    """Preallocated tensors, which `load` overwrites.

    Envs that a collector left out (`Slot.dropped_B`) have no column: [T, N] is then narrower.

    Attributes:
        obs: Group -> [T + 1, N, ...]; the last row are the observations after the last step.
        images: Likewise, of those groups that are read from where the rollout left them.
        action_TNA: As sampled; `behavior_log_prob_TN` beside it, float32.
        fields: Name -> [T, N, ...], what the policy recorded besides.
        state: Name -> [N, ...], what the policy remembered before the first step.
        past: Name -> [N, ...], the steps before that one; see `models/past.py`.
        reward_TN: Raw, float32; `terminated_TN` and `truncated_TN` beside it, bool.
        final_obs: Group -> [F, ...], of episodes that were cut off; empty where none are given.
        final_step: [F] index t * N + n of the step each of them ended. On a GPU there is room for
            more of them, so that F stays the same; the rest have index T * N.
        narrow: Whether an env is left out.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_collectors: int,
        steps_per_env: int,
        action_dtype: torch.dtype,
        device: torch.device,
        fields: Mapping[str, TensorSpec] | None = None,
        state: State | None = None,
        images: Mapping[str, TensorSpec] | None = None,
    ) -> None:
        """Allocate for `num_collectors` slots of [T, B].

        Args:
            spec: Of one collector's env.
            num_collectors: Slots side by side.
            steps_per_env: T.
            action_dtype: As the slots have it.
            device: Where to.
            fields: `Policy.fields`.
            state: What the policy remembers of one env at an episode's start, and `no_past`.
            images: `Policy.images`.
        """
        T, N = steps_per_env, num_collectors * spec.num_envs
        self._spec, self.device = spec, device

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.images = {group: Images(group, s, device) for group, s in (images or {}).items()}
        self._obs = {
            group: zeros(T + 1, N, *s.shape, dtype=getattr(torch, s.dtype))
            for group, s in spec.obs.items()
            if group not in self.images
        }
        self._final_specs = {**spec.obs, **(images or {})}
        self._fields = {
            name: zeros(T, N, *s.shape, dtype=getattr(torch, s.dtype))
            for name, s in (fields or {}).items()
        }
        self._state = {
            name: zeros(N, *x.shape[1:], dtype=x.dtype) for name, x in (state or {}).items()
        }
        self._action_TNA = zeros(T, N, spec.action.dim, dtype=action_dtype)
        self._behavior_log_prob_TN = zeros(T, N)
        self._reward_TN = zeros(T, N)
        self._terminated_TN = zeros(T, N, dtype=torch.bool)
        self._truncated_TN = zeros(T, N, dtype=torch.bool)
        self._show(N)
        self.final_step = torch.empty(0, dtype=torch.int64, device=device)
        self.final_obs: dict[str, torch.Tensor] = {}
        if spec.has_final_obs and device.type == "cuda":
            self._reserve_finals(N)  # all envs once: episodes that began together end together
        self.policy_versions: list[int] = []

    def _show(self, columns: int) -> None:
        """Show the first columns; all of them are the tensors themselves."""
        self.narrow = columns < self._reward_TN.shape[1]
        self.obs = {group: obs[:, :columns] for group, obs in self._obs.items()}
        self.fields = {name: field[:, :columns] for name, field in self._fields.items()}
        remembered = {name: state[:columns] for name, state in self._state.items()}
        self.past = {name: x for name, x in remembered.items() if name.startswith(PAST)}
        self.state = {name: x for name, x in remembered.items() if name not in self.past}
        self.action_TNA = self._action_TNA[:, :columns]
        self.behavior_log_prob_TN = self._behavior_log_prob_TN[:, :columns]
        self.reward_TN = self._reward_TN[:, :columns]
        self.terminated_TN = self._terminated_TN[:, :columns]
        self.truncated_TN = self._truncated_TN[:, :columns]

    def load(self, slots: list[Slot]) -> None:
        """Copy the slots in, in worker order; on a GPU most are only begun by then."""
        self.policy_versions = [int(slot.header["policy_version"][0]) for slot in slots]
        finals: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
        to_gpu = self.device.type == "cuda"
        first = 0  # column of the next slot's first env
        kept_of: list[torch.Tensor | None] = []
        for slot in slots:
            kept = None  # all, which is one plain copy
            if slot.dropped_B.any():
                kept = (~slot.dropped_B).nonzero().squeeze(1).to(slot.reward_TB.device)
            kept_of.append(kept)
            count = self._spec.num_envs if kept is None else kept.shape[0]
            for ours, theirs in (
                *((self._obs[group], slot.obs[group]) for group in self._obs),
                *((self._fields[name], slot.fields[name]) for name in self._fields),
                (self._action_TNA, slot.action_TBA),
                (self._behavior_log_prob_TN, slot.behavior_log_prob_TB),
                (self._reward_TN, slot.reward_TB),
                (self._terminated_TN, slot.terminated_TB),
                (self._truncated_TN, slot.truncated_TB),
            ):
                theirs = theirs if kept is None else theirs[:, kept]
                ours[:, first : first + count].copy_(theirs, non_blocking=to_gpu)
            for name, ours in self._state.items():
                theirs = slot.state[name] if kept is None else slot.state[name][kept]
                ours[first : first + count].copy_(theirs, non_blocking=to_gpu)
            if slot.final_index_C2 is not None:
                finals.append(_final_rows(slot, kept, first))
            first += count
        self._show(first)
        for images in self.images.values():
            images.load(slots, kept_of)
        if finals:
            self._load_finals(finals)

    def _load_finals(self, finals: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> None:
        index_F2 = torch.cat([index for index, _ in finals]).to(self.device)
        obs = {
            group: torch.cat([rows[group] for _, rows in finals]).to(self.device)
            for group in self._spec.obs
        }
        T, N = self.reward_TN.shape
        count, step_F = index_F2.shape[0], index_F2[:, 0] * N + index_F2[:, 1]
        if self.device.type == "cpu":
            self.final_step, self.final_obs = step_F, obs
            return
        if count > self.final_step.shape[0]:
            self._reserve_finals(2 * count)
        self.final_step.fill_(T * N)
        self.final_step[:count].copy_(step_F)
        for group, rows in self.final_obs.items():
            rows[:count].copy_(obs[group])

    def _reserve_finals(self, rows: int) -> None:
        device = self.device
        self.final_step = torch.zeros(rows, dtype=torch.int64, device=device)
        self.final_obs = {
            group: torch.zeros((rows, *s.shape), dtype=getattr(torch, s.dtype), device=device)
            for group, s in self._final_specs.items()
        }

    @property
    def is_placed(self) -> bool:
        """Whether it is known where all that is learned from lies."""
        return all(images.placed for images in self.images.values())

    @property
    def obs_N(self) -> dict[str, torch.Tensor]:
        """Observations acted on, group -> [T * N, ...]; views."""
        return {group: obs[:-1].flatten(0, 1) for group, obs in self.obs.items()}

    def all_obs(self, group: str) -> torch.Tensor | Images:
        """Return a group with the observations after the last step, [(T + 1) * N, ...]."""
        images = self.images.get(group)
        return self.obs[group].flatten(0, 1) if images is None else images

    def finals(self, group: str) -> torch.Tensor:
        """Return a group's final observations [F, ...], as the networks read them."""
        rows, images = self.final_obs[group], self.images.get(group)
        return rows if images is None else images.with_past(rows, self.final_step)

    def sequences(self, steps: int) -> Sequences | None:
        """Return the columns' first steps as sequences, if the policy remembers anything.

        Args:
            steps: T, or T + 1 with the observation after the last step.
        """
        if not self.state:
            return None
        ended_TN = self.terminated_TN | self.truncated_TN
        # What the policy remembered before the first step is of the episode of that step.
        starts_T1N = torch.cat([torch.zeros_like(ended_TN[:1]), ended_TN])
        return Sequences(self.state, starts_T1N[:steps])

    @property
    def samples_N(self) -> dict[str, torch.Tensor | Images]:
        """What a policy's networks may read: obs groups, recorded fields as `field/<name>`."""
        fields = {f"field/{name}": field.flatten(0, 1) for name, field in self.fields.items()}
        return {**self.obs_N, **self.images, **fields}


def _final_rows(
    slot: Slot, kept: torch.Tensor | None, first: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Copy the final observations of the envs that are kept; their index is of our columns."""
    assert slot.final_index_C2 is not None
    count = int(slot.header["final_count"][0])
    index, obs = slot.final_index_C2[:count].clone(), slot.final_obs
    if kept is None:
        index[:, 1] += first
        return index, {group: rows[:count].clone() for group, rows in obs.items()}
    chosen = torch.isin(index[:, 1], kept).nonzero().squeeze(1)
    index = index[chosen]
    index[:, 1] = first + torch.searchsorted(kept, index[:, 1].contiguous())
    return index, {group: rows[:count][chosen] for group, rows in obs.items()}
