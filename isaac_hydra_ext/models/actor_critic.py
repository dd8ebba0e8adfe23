"""The policy that this package brings: an actor and a critic, each with normalisers of its own.

Used by the learner, by every collector and wherever a policy is played.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import nn

from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.errors import ConfigError, did_you_mean
from isaac_hydra_ext.models.distributions import make_distribution
from isaac_hydra_ext.models.encoders import (
    check_groups,
    make_encoder,
    num_features,
    with_every_picture,
)
from isaac_hydra_ext.models.flat import flatten
from isaac_hydra_ext.models.networks import is_chain, last_layer, make_network, start_at_zero
from isaac_hydra_ext.models.normalizer import Normalizer, Reduction, own_alone
from isaac_hydra_ext.models.policy import Acted, Chain, Policy, Samples, Sequences, State
from isaac_hydra_ext.system.seeding import Stream, stream_seed

MIN_STD = 1e-3  # of a directly learned std, unless it begins below


def choose_obs_groups(
    asked: Mapping[str, Sequence[str]] | None, available: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Choose the obs groups of actor and critic.

    Unasked: the actor sees the group `actor` or `policy`, else all groups but `critic`; the critic
    sees `critic` if there is one, else what the actor sees. A group whose terms are not
    concatenated (`policy/clock`, `policy/rest`) is all of these.

    Raises:
        ConfigError: A group that the environment does not have.
    """
    chosen: dict[str, list[str]] = {}
    for role, groups in (asked or {}).items():
        if role not in ("actor", "critic"):
            raise ConfigError(f"policy.obs_groups.{role}: must be actor or critic")
        chosen[role] = []
        for group in groups:
            found = group_and_terms(group, available)
            if not found:
                known = dict.fromkeys([*(g.split("/")[0] for g in available), *available])
                hint = did_you_mean(group, known) or f"; there are {', '.join(available)}"
                raise ConfigError(f"policy.obs_groups.{role}: the env has no group {group!r}{hint}")
            chosen[role] += [g for g in found if g not in chosen[role]]
    named = group_and_terms("actor", available) or group_and_terms("policy", available)
    privileged = group_and_terms("critic", available)
    others = [group for group in available if group not in privileged]
    actor = chosen.get("actor") or named or others or list(available)
    critic = chosen.get("critic") or privileged or list(actor)
    return actor, critic


def group_and_terms(name: str, available: Sequence[str]) -> list[str]:
    """Return the group of that name, or the terms of a nested one."""
    return [group for group in available if group == name or group.startswith(f"{name}/")]


class ActorCritic(nn.Module, Policy):
    """Two networks with their own obs groups and normalisers; see `Policy` for the attributes."""

    fields: Mapping[str, TensorSpec] = {}
    frame_stack = 1  # K; see `stacks.py`
    std: torch.Tensor | None
    make_network = staticmethod(make_network)

    def __init__(
        self,
        config: PolicyConfig,
        spec: EnvSpec,
        seed: int,
        device: str | torch.device = "cpu",
        critic: bool = True,
    ) -> None:
        """Build and initialise on the CPU from `seed`, then move to `device`.

        Without `critic` that is an empty module, which has no groups and no normalisers.

        Raises:
            ConfigError: `policy.obs_groups` or `policy.encoders` names a group that the env does
                not have, or `policy.network` one that breaks its contract.
        """
        super().__init__()
        self.actor_groups, self.critic_groups = choose_obs_groups(config.obs_groups, list(spec.obs))
        shared = [g for g in self.actor_groups if config.share_encoders and g in self.critic_groups]
        if not critic:
            self.critic_groups = []
        read = [*self.actor_groups, *self.critic_groups]
        config = with_every_picture(config, spec, read)
        check_groups(config, spec, read)
        self.distribution = make_distribution(config, spec.action, device)
        actor_out = self.distribution.num_outputs
        shared = [group for group in shared if group in config.encoders]
        with torch.random.fork_rng(devices=[]):
            # The CPU's generator alone: `torch.manual_seed` would seed every GPU's too, and a
            # simulation that draws there would repeat another worker's numbers.
            torch.default_generator.manual_seed(stream_seed(seed, Stream.INIT))
            # In the order of their parameters in `flat`: the actor's, shared ones, the critic's.
            self.actor_encoders = _encoders(config, spec, _without(shared, self.actor_groups))
            both = _encoders(config, spec, shared)
            inputs = _input_size(self.actor_groups, spec, self.actor_encoders, both)
            self.actor = self.make_network(config, "actor", inputs, actor_out)
            self.shared_encoders = both
            self.critic_encoders = _encoders(config, spec, _without(shared, self.critic_groups))
            inputs = _input_size(self.critic_groups, spec, self.critic_encoders, both)
            self.critic = (
                self.make_network(config, "critic", inputs, 1) if critic else nn.Sequential()
            )
        if spec.action.kind == "continuous" and actor_out > spec.action.dim:
            start_at_zero(self.actor_head, spec.action.dim)
        self._make_std(config, self.distribution.num_params - actor_out)
        encoders = config.encoders
        self.actor_normalizers = _normalizers(
            _without(encoders, self.actor_groups), spec, config.normalize_obs
        )
        self.critic_normalizers = _normalizers(
            _without(encoders, self.critic_groups), spec, config.normalize_critic_obs
        )
        self.value_normalizer = Normalizer(1) if critic and config.normalize_values else None
        if self.value_normalizer is not None:
            last_layer(self.critic_head)
        self.to(device)
        self.flat, self.num_params = flatten(self)  # std, actor, critic, statistics

    def _make_std(self, config: PolicyConfig, size: int) -> None:
        """Make the std that no observation changes, if the distribution has one of `size`."""
        self.log_std_type = config.std_type == "log"
        self.std_limits: tuple[float | None, float | None] | None = None
        std = torch.full((size,), config.init_std)
        std = std.log() if self.log_std_type else std
        if not size:
            self.std = None
        elif config.learn_std:
            self.std = nn.Parameter(std)
        else:
            self.register_buffer("std", std)
        if config.std_range is not None:
            least, most = config.std_range
            logs = math.log(least), math.log(most)
            self.std_limits = logs if self.log_std_type else (least, most)
        elif not self.log_std_type:
            self.std_limits = (min(MIN_STD, config.init_std), None)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        parameters, shared = list(self.parameters()), list(self.shared_encoders.parameters())
        critic = [*self.critic_encoders.parameters(), *self.critic.parameters()]
        actor = parameters[: len(parameters) - len(shared) - len(critic)]
        groups = {"actor": actor, "shared": shared, "critic": critic}
        return {name: group for name, group in groups.items() if group}

    def act(self, obs: Samples, state: State, noise_BN: torch.Tensor | None) -> Acted:
        return self.acted(self.action_params(obs), noise_BN, {})

    def acted(self, params_BP: torch.Tensor, noise_BN: torch.Tensor | None, state: State) -> Acted:
        """Return the action that noise makes of the distribution; None: its mode."""
        distribution = self.distribution
        if noise_BN is None:
            action = distribution.mode(params_BP)
        else:
            action = distribution.sample(params_BP, noise_BN)
        return Acted(action, distribution.to_env(action), params_BP, state=state)

    @property
    def actor_head(self) -> nn.Module:
        """The actor's layers, the last of which gives the distribution's parameters."""
        return self.actor

    @property
    def critic_head(self) -> nn.Module:
        """The critic's layers, of which PopArt rescales the last."""
        return self.critic

    def actor_input(self, samples: Samples) -> torch.Tensor:
        """Return what the actor reads of N samples, [N, O]."""
        of_actor = (self.actor_groups, self.actor_normalizers, self.actor_encoders)
        return self._features(samples, *of_actor)

    def critic_input(self, samples: Samples) -> torch.Tensor:
        """Return what the critic reads of N samples, [N, O]."""
        of_critic = (self.critic_groups, self.critic_normalizers, self.critic_encoders)
        return self._features(samples, *of_critic)

    def _features(
        self,
        obs: Mapping[str, torch.Tensor],
        groups: Sequence[str],
        normalizers: nn.ModuleDict,
        encoders: nn.ModuleDict,
    ) -> torch.Tensor:
        """Encode pictures, flatten and normalise the rest, concatenate: [N, ...] each -> [N, F]."""
        parts = []
        for group in groups:
            key, x = _key(group), obs[group]
            if key in encoders or key in self.shared_encoders:
                parts.append((encoders if key in encoders else self.shared_encoders)[key](x))
                continue
            x = x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
            parts.append(normalizers[key](x) if len(normalizers) else x.to(torch.float32))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def action_params(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        return self.params_of(self.actor(self.actor_input(samples)))

    def params_of(self, out: torch.Tensor) -> torch.Tensor:
        """Return the distribution's parameters, given the actor's output."""
        std = self.current_std()
        return out if std is None else torch.cat([out, std.expand_as(out)], dim=-1)

    def current_std(self) -> torch.Tensor | None:
        """Return the std [A] that no observation changes; None where there is none."""
        return self.std.exp() if self.std is not None and self.log_std_type else self.std

    def chain(self) -> Chain | None:
        if len(self.actor_encoders) or len(self.shared_encoders) or not is_chain(self.actor):
            return None
        if type(self).action_params is not ActorCritic.action_params:
            return None
        normalizers = normalizers_of(self.actor_groups, self.actor_normalizers)
        layers = [*self.actor.children()]
        learned = self.std if isinstance(self.std, nn.Parameter) else None
        return Chain(self.actor_groups, normalizers, layers, self.current_std, learned)

    def critic_chain(self) -> Chain | None:
        if len(self.critic_encoders) or len(self.shared_encoders) or not is_chain(self.critic):
            return None
        if type(self).raw_value is not ActorCritic.raw_value:
            return None
        normalizers = normalizers_of(self.critic_groups, self.critic_normalizers)
        return Chain(self.critic_groups, normalizers, [*self.critic.children()], lambda: None, None)

    @torch.no_grad()
    def mean_std(self) -> torch.Tensor | None:
        std = self.current_std()
        return None if std is None else std.mean()

    @torch.no_grad()
    def after_step(self) -> None:
        """Project a learned std back into its range; a log without one needs none."""
        if isinstance(self.std, nn.Parameter) and self.std_limits is not None:
            self.std.data.clamp_(*self.std_limits)

    def raw_value(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        """Return the critic's output [M]: normalised returns if `normalize_values`."""
        return self.critic(self.critic_input(samples)).squeeze(-1)

    def denormalize_value(self, value: torch.Tensor) -> torch.Tensor:
        normalizer = self.value_normalizer
        return value if normalizer is None else normalizer.inverse(value)

    def normalize_value(self, value: torch.Tensor) -> torch.Tensor:
        normalizer = self.value_normalizer
        return value if normalizer is None else normalizer(value)

    @property
    def has_statistics(self) -> bool:
        normalizers = len(self.actor_normalizers) + len(self.critic_normalizers)
        return normalizers > 0 or self.value_normalizer is not None

    @torch.no_grad()
    def update_statistics(
        self, obs: Samples, returns_N: torch.Tensor, combine: Reduction = own_alone
    ) -> None:
        """Merge one iteration's raw observations and returns into the normalisers.

        The critic's last layer is rescaled so that its denormalised outputs do not move when its
        statistics do (PopArt: van Hasselt et al. 2016, eq. 9).
        """
        for normalizers in (self.actor_normalizers, self.critic_normalizers):
            for key, normalizer in normalizers.items():
                assert isinstance(normalizer, Normalizer)
                x = obs[_group(key)]
                normalizer.update(x.reshape(x.shape[0], -1), combine)
        if self.value_normalizer is not None:
            normalizer, last = self.value_normalizer, last_layer(self.critic_head)
            old_mean, old_std = normalizer.mean.clone(), normalizer.std.clone()
            normalizer.update(returns_N.unsqueeze(1), combine)
            last.weight.data.mul_(old_std / normalizer.std)
            last.bias.data.copy_(
                (old_std * last.bias.data + old_mean - normalizer.mean) / normalizer.std
            )


def _without(those: Collection[str], groups: Sequence[str]) -> list[str]:
    return [group for group in groups if group not in those]


def _encoders(config: PolicyConfig, spec: EnvSpec, groups: Sequence[str]) -> nn.ModuleDict:
    """Build the encoders of those of the groups that have one."""
    given = config.encoders
    return nn.ModuleDict(
        {_key(g): make_encoder(g, given[g], spec.obs[g]) for g in groups if g in given}
    )


def _input_size(groups: Sequence[str], spec: EnvSpec, *encoders: nn.ModuleDict) -> int:
    """Return how many numbers a network reads of its groups, once they are encoded."""

    def size_of(group: str) -> int:
        encoder = next((e[_key(group)] for e in encoders if _key(group) in e), None)
        return _size(spec.obs[group]) if encoder is None else num_features(encoder, spec.obs[group])

    return sum(map(size_of, groups))


def normalizers_of(groups: Sequence[str], normalizers: nn.ModuleDict) -> list[Normalizer | None]:
    """Return the normaliser of each group; None where it has none."""
    there = dict(normalizers.items())
    return [cast("Normalizer | None", there.get(_key(group))) for group in groups]


def _key(group: str) -> str:
    """Name a group's module: without dots, and not as one of `ModuleDict`'s own attributes."""
    key = group.replace(".", "__dot__")
    return f"__group__{key}" if hasattr(nn.ModuleDict, key) or key == "training" else key


def _group(key: str) -> str:
    return key.removeprefix("__group__").replace("__dot__", ".")


def _normalizers(groups: Sequence[str], spec: EnvSpec, enabled: bool) -> nn.ModuleDict:
    if not enabled:
        return nn.ModuleDict()
    return nn.ModuleDict(
        {
            _key(group): Normalizer(_size(spec.obs[group]), getattr(torch, spec.obs[group].dtype))
            for group in groups
        }
    )


def _size(spec: TensorSpec) -> int:
    """Return how many numbers an observation of a group is; a scalar is one."""
    return max(1, torch.Size(spec.shape).numel())
