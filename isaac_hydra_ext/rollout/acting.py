"""Acting: the policy's part of each step of a rollout, between two steps of the env.

Runs wherever the simulation does.
"""

from typing import Protocol

import torch

from isaac_hydra_ext.models.policy import Policy, State, restarted
from isaac_hydra_ext.rollout.in_place_acting import InPlaceActing
from isaac_hydra_ext.rollout.slot import Slot


class Acting(Protocol):
    """The policy on one slot. The caller has switched gradients off."""

    def begin(self, noise_TBN: torch.Tensor, state: State) -> None:
        """Start a rollout.

        Args:
            noise_TBN: The randomness of its actions.
            state: What the policy remembers of the episodes that go on.
        """
        ...

    def act(self, t: int) -> torch.Tensor:
        """Answer observation t: write what is recorded into the slot, return the env's action."""
        ...

    def forget(self, ended_B: torch.Tensor) -> None:
        """Begin with the initial state where an episode has just ended; for policies with one."""
        ...

    @property
    def state(self) -> State:
        """What the policy remembers after the last step."""
        ...

    def params(self, steps: int) -> torch.Tensor:
        """Return the distribution's parameters of the first steps, [steps, B, P]."""
        ...


class PlainActing:
    """Any policy, one operation after the other, on any device."""

    def __init__(self, policy: Policy, slot: Slot) -> None:
        """Act with `policy`, whose weights may change between rollouts, on `slot`."""
        self._policy, self._slot = policy, slot
        self._groups = [group for group in policy.actor_groups if group in slot.obs]
        self._fresh = policy.initial_state(slot.reward_TB.shape[1])

    def begin(self, noise_TBN: torch.Tensor, state: State) -> None:
        self._noise_TBN, self.state = noise_TBN, state
        self._params: list[torch.Tensor] = []

    def act(self, t: int) -> torch.Tensor:
        rows = self._slot.rows
        obs = {group: rows.obs[group][t] for group in self._groups}
        acted = self._policy.act(obs, self.state, self._noise_TBN[t])
        self._params.append(acted.params_BP)
        rows.action[t].copy_(acted.action_BA)
        for name, field in rows.fields.items():
            field[t].copy_(acted.recorded[name])
        self.state = acted.state
        return acted.env_action_BA

    def forget(self, ended_B: torch.Tensor) -> None:
        self.state = restarted(self.state, self._fresh, ended_B)

    def params(self, steps: int) -> torch.Tensor:
        return torch.stack(self._params[:steps])


def make_acting(policy: Policy, slot: Slot, captured: bool = True) -> Acting:
    """Choose by where the slot is; see `Captured` for when to call it on a GPU.

    Args:
        policy: That acts.
        slot: That it acts on.
        captured: Use a CUDA graph on a GPU (`ppo.cuda_graphs`).
    """
    device = slot.reward_TB.device
    if device.type == "cpu" and (chain := policy.chain()) is not None:
        return InPlaceActing(chain, policy.distribution, slot)
    if device.type != "cuda" or not captured:
        return PlainActing(policy, slot)
    generator = torch.Generator(device)
    noise_TBN = policy.distribution.draw_noise(tuple(slot.reward_TB.shape), generator)
    from isaac_hydra_ext.rollout.captured_acting import CapturedActing  # on a GPU only

    with torch.no_grad():
        return CapturedActing(policy, slot, noise_TBN)
