"""Acting on the CPU with a small network, in memory that is made once for each slot.

Runs wherever the simulation does. Such a network takes 10 us, and calling it as a module takes as
long again; so its layers are called by themselves, each into a buffer of its own. The numbers are
those of `ActorCritic.action_params`, to the last bit.
"""

from collections.abc import Callable
from copy import copy

import torch
from torch import nn

from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.networks import ACTIVATIONS
from isaac_hydra_ext.rollout.slot import Slot


def can_act_in_place(network: nn.Module) -> bool:
    """Return whether a network is linear layers with biases, and known activations between."""
    if type(network) is not nn.Sequential:
        return False
    ends = (type(network[0]), type(network[-1]))
    linear = [layer for layer in network if type(layer) is nn.Linear and layer.bias is not None]
    others = [layer for layer in network if type(layer) in ACTIVATIONS.values()]
    return ends == (nn.Linear, nn.Linear) and len(linear) + len(others) == len(network)


class InPlaceActing:
    """The actor's normalisers and layers, each with the memory that it writes into."""

    def __init__(self, policy: ActorCritic, slot: Slot) -> None:
        """Act with `policy`, whose actor `can_act_in_place`; its weights stay views of `flat`."""
        self._distribution, self._policy = policy.distribution, policy
        T, B = slot.reward_TB.shape
        layers = list(policy.actor.children())
        *hidden, last = layers
        assert isinstance(layers[0], nn.Linear) and isinstance(last, nn.Linear)
        self._params_TBP = torch.empty(T, B, self._distribution.num_params)
        self._rows_BP = self._params_TBP.unbind(0)
        self._out_BA = self._params_TBP[..., : last.out_features].unbind(0)
        self._action_BA = slot.rows.action
        self._input_BO = torch.empty(B, layers[0].in_features)
        obs = [slot.rows.obs[group] for group in policy.actor_groups]
        parts = self._input_BO.split([rows[0].numel() // B for rows in obs], dim=1)
        self._inputs = [
            (part, part.view(rows[0].shape), rows, policy.actor_normalizer(group))
            for part, rows, group in zip(parts, obs, policy.actor_groups, strict=True)
        ]
        self._hidden = [
            _linear(layer, B) if isinstance(layer, nn.Linear) else _in_place(layer)
            for layer in hidden
        ]
        self._bias, self._weight = last.bias.detach(), last.weight.detach().t()

    def begin(self, noise_TBP: torch.Tensor) -> None:
        self._noise_BP = noise_TBP.unbind(0)
        std = self._policy.current_std()
        if std is not None:  # no observation changes it
            self._params_TBP[..., std.shape[0] :] = std

    def act(self, t: int) -> torch.Tensor:
        """Return a new tensor each time: an env may keep the action."""
        for part, shaped, rows, normalizer in self._inputs:
            shaped.copy_(rows[t])
            if normalizer is not None:
                part.sub_(normalizer.mean).div_(normalizer.std)
        x = self._input_BO
        for layer in self._hidden:
            x = layer(x)
        torch.addmm(self._bias, x, self._weight, out=self._out_BA[t])
        action = self._distribution.sample(self._rows_BP[t], self._noise_BP[t])
        self._action_BA[t].copy_(action)
        return self._distribution.to_env(action)

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
