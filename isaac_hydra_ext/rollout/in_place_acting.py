"""Acting on the CPU with a small network, in memory that is made once for each slot.

Runs wherever the simulation does. Such a network takes 10 us, and calling it as a module takes as
long again; so its layers are called by themselves, each into a buffer of its own. The numbers are
those of `Policy.action_params`, to the last bit.
"""

from collections.abc import Callable
from copy import copy

import torch
from torch import nn

from isaac_hydra_ext.models.distributions import ActionDistribution
from isaac_hydra_ext.models.policy import Chain, State
from isaac_hydra_ext.rollout.slot import Slot


class InPlaceActing:
    """The actor's normalisers and layers, each with the memory that it writes into."""

    def __init__(self, chain: Chain, distribution: ActionDistribution, slot: Slot) -> None:
        """Act with a chain whose weights stay views of the policy's `flat`."""
        self._distribution, self._std = distribution, chain.std
        T, B = slot.reward_TB.shape
        *hidden, last = chain.layers
        first = chain.layers[0]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        self._params_TBP = torch.empty(T, B, distribution.num_params)
        self._rows_BP = self._params_TBP.unbind(0)
        self._out_BA = self._params_TBP[..., : last.out_features].unbind(0)
        self._action_BA = slot.rows.action
        self._input_BO = torch.empty(B, first.in_features)
        obs = [slot.rows.obs[group] for group in chain.groups]
        parts = self._input_BO.split([rows[0].numel() // B for rows in obs], dim=1)
        self._inputs = [
            (part, part.view(rows[0].shape), rows, normalizer)
            for part, rows, normalizer in zip(parts, obs, chain.normalizers, strict=True)
        ]
        self._hidden = [
            _linear(layer, B) if isinstance(layer, nn.Linear) else _in_place(layer)
            for layer in hidden
        ]
        self._bias, self._weight = last.bias.detach(), last.weight.detach().t()
        self.state: State = {}  # a chain remembers nothing

    def begin(self, noise_TBN: torch.Tensor, state: State) -> None:
        self._noise_BN = noise_TBN.unbind(0)
        std = self._std()
        if std is not None:  # no observation changes it
            self._params_TBP[..., std.shape[0] :] = std

    def act(self, t: int) -> torch.Tensor:
        """The env's copy is a new tensor each time, because an env may keep it."""
        for part, shaped, rows, normalizer in self._inputs:
            if normalizer is not None and normalizer.mean_rest is not None:
                part.copy_(normalizer(rows[t].view(part.shape)))
                continue
            shaped.copy_(rows[t])
            if normalizer is not None:
                part.sub_(normalizer.mean).div_(normalizer.std)
        x = self._input_BO
        for layer in self._hidden:
            x = layer(x)
        torch.addmm(self._bias, x, self._weight, out=self._out_BA[t])
        action = self._distribution.sample(self._rows_BP[t], self._noise_BN[t])
        self._action_BA[t].copy_(action)
        return self._distribution.to_env(action)

    def forget(self, ended_B: torch.Tensor) -> None:
        """There is nothing to forget."""

    def params(self, steps: int) -> torch.Tensor:
        return self._params_TBP[:steps]


def _linear(layer: nn.Linear, rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    bias, weight = layer.bias.detach(), layer.weight.detach().t()
    out = torch.empty(rows, layer.out_features)
    return lambda x: torch.addmm(bias, x, weight, out=out)


def _in_place(activation: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    if isinstance(activation, nn.Tanh):
        return torch.tanh_
    activation = copy(activation)
    vars(activation).update(inplace=True)  # GELU has no such thing, and does not look
    return activation.forward
