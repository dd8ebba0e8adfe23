"""Acting: the policy's part of each step of a rollout, between two steps of the env.

Runs wherever the simulation does. On a GPU the part is one CUDA graph, recorded for each slot: it
reads the slot's newest observation and writes what the policy makes of it beside it.
"""

from typing import Protocol

import torch

from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.in_place_acting import InPlaceActing, can_act_in_place
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system.cuda import Recorded


class Acting(Protocol):
    """The policy on one slot."""

    def begin(self, noise_TBP: torch.Tensor) -> None:
        """Start a rollout with the randomness of its actions."""
        ...

    def act(self, t: int) -> torch.Tensor:
        """Answer observation t: write the action into the slot, return the env's copy of it."""
        ...

    def params(self, steps: int) -> torch.Tensor:
        """Return the distribution's parameters of the first steps, [steps, B, P]."""
        ...


class PlainActing:
    """One operation after the other, on any device."""

    def __init__(self, policy: ActorCritic, slot: Slot) -> None:
        """Act with `policy`, whose weights may change between rollouts, on `slot`."""
        self._policy, self._slot = policy, slot

    def begin(self, noise_TBP: torch.Tensor) -> None:
        self._noise_TBP, self._params = noise_TBP, []

    def act(self, t: int) -> torch.Tensor:
        distribution, slot = self._policy.distribution, self._slot
        obs = {group: slot.obs[group][t] for group in self._policy.actor_groups}
        params = self._policy.action_params(obs)
        self._params.append(params)
        action = distribution.sample(params, self._noise_TBP[t])
        slot.action_TBA[t].copy_(action)
        return distribution.to_env(action)

    def params(self, steps: int) -> torch.Tensor:
        return torch.stack(self._params[:steps])


class RecordedActing:
    """One CUDA graph for every step: it counts the steps itself, on the device."""

    def __init__(self, policy: ActorCritic, slot: Slot, noise_TBP: torch.Tensor) -> None:
        """Record; `noise_TBP` gives shape and device of what `begin` will be given."""
        self._policy, self._slot = policy, slot
        device = slot.reward_TB.device
        self._noise_TBP = torch.zeros_like(noise_TBP)
        self._t = torch.zeros(1, dtype=torch.int64, device=device)
        T, B = slot.reward_TB.shape
        self._params_TBP = torch.zeros(T, B, policy.distribution.num_params, device=device)
        self._step = Recorded(self._act, torch.cuda.Stream(device), before_each=self._t.zero_)

    def begin(self, noise_TBP: torch.Tensor) -> None:
        self._noise_TBP.copy_(noise_TBP)
        self._t.zero_()

    def act(self, t: int) -> torch.Tensor:
        """Return a copy: an env may keep the action."""
        return self._step().clone()

    def params(self, steps: int) -> torch.Tensor:
        return self._params_TBP[:steps]

    def _act(self) -> torch.Tensor:
        distribution, slot, t = self._policy.distribution, self._slot, self._t
        obs = {g: slot.obs[g].index_select(0, t)[0] for g in self._policy.actor_groups}
        params = self._policy.action_params(obs)
        action = distribution.sample(params, self._noise_TBP.index_select(0, t)[0])
        self._params_TBP.index_copy_(0, t, params.unsqueeze(0))
        slot.action_TBA.index_copy_(0, t, action.unsqueeze(0))
        self._t.add_(1)
        return distribution.to_env(action)


def make_acting(policy: ActorCritic, slot: Slot, recorded: bool = True) -> Acting:
    """Choose by where the slot is; see `Recorded` for when to call it on a GPU.

    Args:
        policy: That acts.
        slot: That it acts on.
        recorded: Use a CUDA graph on a GPU (`ppo.cuda_graphs`).
    """
    device = slot.reward_TB.device
    if device.type == "cpu" and can_act_in_place(policy.actor):
        return InPlaceActing(policy, slot)
    if device.type != "cuda" or not recorded:
        return PlainActing(policy, slot)
    generator = torch.Generator(device)
    noise_TBP = policy.distribution.draw_noise(tuple(slot.reward_TB.shape), generator)
    with torch.inference_mode():
        return RecordedActing(policy, slot, noise_TBP)
