"""Acting on a GPU: one CUDA graph, captured for each slot.

It reads the slot's newest observation and writes what the policy makes of it beside it. Runs
wherever the simulation does.
"""

import torch

from isaac_hydra_ext.models.policy import Acted, Policy, State, restarted
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system.cuda import Captured


class CapturedActing:
    """One CUDA graph for every step: it counts the steps itself, on the device."""

    def __init__(self, policy: Policy, slot: Slot, noise_TBN: torch.Tensor) -> None:
        """Capture; `noise_TBN` gives shape and device of what `begin` will be given."""
        self._policy, self._slot = policy, slot
        self._groups = [group for group in policy.actor_groups if group in slot.obs]
        device, (T, B) = slot.reward_TB.device, slot.reward_TB.shape
        self._noise_TBN = torch.zeros_like(noise_TBN)
        self._t = torch.zeros(1, dtype=torch.int64, device=device)
        self._params_TBP = torch.zeros(T, B, policy.distribution.num_params, device=device)
        self._fresh = policy.initial_state(B)
        self.state: State = {name: x.clone() for name, x in self._fresh.items()}
        self._step = Captured(self._act, torch.cuda.Stream(device), before_each=self._t.zero_)

    def begin(self, noise_TBN: torch.Tensor, state: State) -> None:
        self._noise_TBN.copy_(noise_TBN)
        self._remember(state)
        self._t.zero_()

    def act(self, t: int) -> torch.Tensor:
        return self._step().clone()  # an env may keep the action

    def forget(self, ended_B: torch.Tensor) -> None:
        self._remember(restarted(self.state, self._fresh, ended_B))

    def params(self, steps: int) -> torch.Tensor:
        return self._params_TBP[:steps]

    def _remember(self, state: State) -> None:
        """Keep the addresses that the graph reads."""
        for name, ours in self.state.items():
            ours.copy_(state[name])

    def _act(self) -> torch.Tensor:
        slot, t = self._slot, self._t
        obs = {group: slot.obs[group].index_select(0, t)[0] for group in self._groups}
        acted: Acted = self._policy.act(obs, self.state, self._noise_TBN.index_select(0, t)[0])
        self._params_TBP.index_copy_(0, t, acted.params_BP.unsqueeze(0))
        slot.action_TBA.index_copy_(0, t, acted.action_BA.unsqueeze(0))
        for name, field in slot.fields.items():
            field.index_copy_(0, t, acted.recorded[name].unsqueeze(0))
        self._remember(acted.state)
        self._t.add_(1)
        return acted.env_action_BA
