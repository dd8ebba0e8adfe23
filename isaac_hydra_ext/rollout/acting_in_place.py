"""The policy's part of a step: observations in, actions out, in memory that is made once.

Runs wherever the collector does. A small network on the CPU takes 10 us, and calling it as a module
takes as long again; so its layers are called by themselves, each into a buffer of its own. The
numbers are those of `ActorCritic.action_params`, to the last bit.
"""

from collections.abc import Callable
from copy import copy

import torch
from torch import nn

from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.networks import ACTIVATIONS
from isaac_hydra_ext.rollout.buffer import Slot


class Acting:
    """Acts for T steps in B envs: `begin`, `act` for each step, `finish`."""

    def __init__(self, policy: ActorCritic, steps_per_env: int, num_envs: int) -> None:
        """Allocate for rollouts of [T, B] on the policy's device."""
        self._policy, self._shape = policy, (steps_per_env, num_envs)
        num_params = policy.distribution.num_params
        self._params_TBP = policy.flat.new_empty(steps_per_env, num_envs, num_params)
        self._rows_BP = self._params_TBP.unbind(0)
        self._network: _InPlaceActor | None = None
        if policy.flat.device.type == "cpu" and _is_plain(policy.actor):
            self._network = _InPlaceActor(policy, self._params_TBP)

    def begin(self, slot: Slot, generator: torch.Generator) -> None:
        """Draw a rollout's noise, which is then in `slot`'s hands.

        Args:
            slot: Its observations are what is acted on; its actions are written.
            generator: Of the rollout's noise.
        """
        distribution = self._policy.distribution
        self._slot = slot
        self._noise_BP = distribution.draw_noise(self._shape, generator).unbind(0)
        if self._network is not None:
            self._network.begin(slot)

    def act(self, t: int) -> torch.Tensor:
        """Choose the actions of step t from observation t; returns the env's copy [B, A].

        That is a new tensor each time: an env may keep it.
        """
        distribution, params = self._policy.distribution, self._rows_BP[t]
        if self._network is not None:
            self._network.forward(t)
        else:
            obs = {group: rows[t] for group, rows in self._slot.rows.obs.items()}
            params.copy_(self._policy.action_params(obs))
        action = distribution.sample(params, self._noise_BP[t])
        self._slot.rows.action[t].copy_(action)
        return distribution.to_env(action)

    def finish(self, steps: int) -> None:
        """Write the log-probs of the first `steps` actions: one of [T, B], not T small ones."""
        log_prob = self._policy.distribution.log_prob
        params, action = self._params_TBP[:steps], self._slot.action_TBA[:steps]
        self._slot.behavior_log_prob_TB[:steps].copy_(log_prob(params, action))


def _is_plain(network: nn.Module) -> bool:
    """Return whether a network is linear layers with biases, and known activations between."""
    if type(network) is not nn.Sequential:
        return False
    ends = (type(network[0]), type(network[-1]))
    linear = [layer for layer in network if type(layer) is nn.Linear and layer.bias is not None]
    others = [layer for layer in network if type(layer) in ACTIVATIONS.values()]
    return ends == (nn.Linear, nn.Linear) and len(linear) + len(others) == len(network)


class _InPlaceActor:
    """The actor's normaliser and layers, each with the memory that it writes into."""

    def __init__(self, policy: ActorCritic, params_TBP: torch.Tensor) -> None:
        """Allocate; the weights are views of `policy.flat`, and so change with it.

        Args:
            policy: Its actor is plain.
            params_TBP: Where the distribution's parameters go, step by step.
        """
        self._policy, self._params_TBP = policy, params_TBP
        layers = list(policy.actor.children())
        *hidden, last = layers
        assert isinstance(layers[0], nn.Linear) and isinstance(last, nn.Linear)
        num_envs = params_TBP.shape[1]
        self._input_BO = torch.empty(num_envs, layers[0].in_features)
        self._hidden = [
            _linear(layer, num_envs) if isinstance(layer, nn.Linear) else _in_place(layer)
            for layer in hidden
        ]
        self._bias, self._weight = last.bias.detach(), last.weight.detach().t()
        self._out_BA = params_TBP[..., : last.out_features].unbind(0)

    def begin(self, slot: Slot) -> None:
        """Look at a slot's observations; fill in the std, which no observation changes."""
        groups = self._policy.actor_groups
        rows = [slot.rows.obs[group] for group in groups]
        # [B, ...] of each group's part of the input
        widths = [obs[0].numel() // self._input_BO.shape[0] for obs in rows]
        parts = self._input_BO.split(widths, dim=1)
        self._parts = [
            (part, part.view(obs[0].shape), obs, self._policy.actor_normalizer(group))
            for part, obs, group in zip(parts, rows, groups, strict=True)
        ]
        std = self._policy.current_std()
        if std is not None:
            self._params_TBP[..., std.shape[0] :] = std

    def forward(self, t: int) -> None:
        """Write the parameters of step t."""
        for part, shaped, rows, normalizer in self._parts:
            shaped.copy_(rows[t])
            if normalizer is not None:
                part.sub_(normalizer.mean).div_(normalizer.std)
        x = self._input_BO
        for layer in self._hidden:
            x = layer(x)
        torch.addmm(self._bias, x, self._weight, out=self._out_BA[t])


def _linear(layer: nn.Linear, num_envs: int) -> Callable[[torch.Tensor], torch.Tensor]:
    bias, weight = layer.bias.detach(), layer.weight.detach().t()
    out = torch.empty(num_envs, layer.out_features)
    return lambda x: torch.addmm(bias, x, weight, out=out)


def _in_place(activation: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    if isinstance(activation, nn.Tanh):
        return torch.tanh_
    activation = copy(activation)
    vars(activation).update(inplace=True)  # GELU has no such thing, and does not look
    return activation.forward
