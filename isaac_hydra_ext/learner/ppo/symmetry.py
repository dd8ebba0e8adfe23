"""Mirrored samples and the mirror loss (Mittal et al. 2024), from a task's symmetries as data.

Runs in the learner's process, inside the recorded update: indices and signs are device tensors.
Mirrors apply to raw observations, before the policy normalises them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, Mirror
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.learner.ppo.losses import ActorSamples, CriticSamples
from isaac_hydra_ext.learner.terms import Term
from isaac_hydra_ext.models.policy import Policy, Samples

ACTION = "action"


class Symmetry:
    """The mirrors of one task. Copies lie one below the other: the original, then each mirror.

    Attributes:
        copies: How many there are, the original included.
    """

    def __init__(
        self, mirrors: Sequence[Mirror], groups: Sequence[str], device: torch.device
    ) -> None:
        """Move the mirrors of these obs groups, and the action's, to the device."""
        self.copies = 1 + len(mirrors)
        entries = {group: [mirror.obs[group] for mirror in mirrors] for group in groups}
        entries[ACTION] = [mirror.action for mirror in mirrors]
        signed = {part: torch.tensor(rows, device=device) for part, rows in entries.items()}
        self._index = {part: rows.abs() - 1 for part, rows in signed.items()}  # [mirrors, size]
        self._sign = {part: rows.sign().float() for part, rows in signed.items()}

    def obs(self, obs: Samples) -> dict[str, torch.Tensor]:
        """Return all copies of obs groups: [M, S] each -> [copies * M, S]."""
        return {group: self._copied(group, x) for group, x in obs.items()}

    def action(self, action_MA: torch.Tensor) -> torch.Tensor:
        """Return all copies of actions [M, A], as sampled or as means: [copies * M, A]."""
        return self._copied(ACTION, action_MA)

    def _copied(self, part: str, x_MS: torch.Tensor) -> torch.Tensor:
        index, sign = self._index[part], self._sign[part].to(x_MS.dtype)
        return torch.cat([x_MS, *(x_MS[:, i] * s for i, s in zip(index, sign, strict=True))])

    def of_actor(self, samples: ActorSamples) -> ActorSamples:
        """Return all copies of M samples; entropy and KL are of the originals alone, as in rsl_rl.

        A mirrored sample has its original's advantage and log-prob, also where the policy is not
        symmetric yet.
        """
        return replace(
            samples,
            action_MA=self.action(samples.action_MA),
            advantage_M=samples.advantage_M.repeat(self.copies),
            proximal_log_prob_M=samples.proximal_log_prob_M.repeat(self.copies),
            weight_M=samples.weight_M.repeat(self.copies),
        )

    def of_critic(self, samples: CriticSamples) -> CriticSamples:
        """Return all copies of M samples."""
        target, before = samples.target_M, samples.proximal_value_M
        return CriticSamples(target.repeat(self.copies), before.repeat(self.copies))


class MirrorLoss(Term):
    """How far mean actions on mirrored observations are from the mirrored mean actions."""

    learning_rate = 0.0

    def __init__(self, symmetry: Symmetry, weight: float) -> None:
        """A weight of 0 only measures."""
        self._symmetry, self.weight = symmetry, weight

    def loss(self, policy: Policy, samples: Samples) -> torch.Tensor:
        """Return the mean square; the mirrored mean actions are what it is to become, and fixed."""
        obs = self._symmetry.obs({group: samples[group] for group in policy.actor_groups})
        mean = policy.distribution.mode(policy.action_params(obs)).float()
        rows = mean.shape[0] // self._symmetry.copies
        wanted = self._symmetry.action(mean[:rows].detach())
        return (mean[rows:] - wanted[rows:]).square().mean()


def make_symmetry(
    config: RunConfig, spec: EnvSpec, policy: Policy, device: torch.device
) -> Symmetry | None:
    """Return the task's symmetries; None where none are given.

    Raises:
        ConfigError: One that the policy or the env is not made for.
    """
    own = {name: Mirror(**mirror) for name, mirror in config.ppo.symmetry.mirrors.items()}
    found = {f"copy {i}": mirror for i, mirror in enumerate(spec.mirrors, 1)}
    mirrors = own or found
    if not mirrors:
        return None
    if policy.initial_state(1) or policy.initial_critic_state(1):
        raise ConfigError("ppo.symmetry: a policy with memory cannot learn from mirrored samples")
    if spec.action.kind != "continuous":
        raise ConfigError("ppo.symmetry: needs continuous actions")
    groups = list(dict.fromkeys([*policy.actor_groups, *policy.critic_groups]))
    for name, mirror in mirrors.items():
        key = f"ppo.symmetry.mirrors.{name}" if own else f"ppo.symmetry, {name}"
        for group in groups:
            _check_group(f"{key}.obs.{group}", mirror.obs.get(group), group, spec)
        if len(mirror.action) != spec.action.dim:
            raise ConfigError(f"{key}.action: {len(mirror.action)} entries of {spec.action.dim}")
        if config.policy.squash == "tanh" or config.policy.distribution == "beta":
            _check_bounds(f"{key}.action", mirror.action, spec)
    return Symmetry(list(mirrors.values()), groups, device)


def _check_group(key: str, entries: Sequence[int] | None, group: str, spec: EnvSpec) -> None:
    """Refuse a group that has no mirror, or one of another size."""
    shape, dtype = (spec.obs[group].shape, spec.obs[group].dtype) if group in spec.obs else ((), "")
    if len(shape) != 1 or not getattr(torch, dtype).is_floating_point:
        raise ConfigError(f"{key}: only vectors of floats can be mirrored; the policy reads it")
    if entries is None:
        raise ConfigError(f"{key}: missing; the policy reads it")
    if len(entries) != shape[0]:
        raise ConfigError(f"{key}: {len(entries)} entries of {shape[0]}")


def _check_bounds(key: str, entries: Sequence[int], spec: EnvSpec) -> None:
    """Refuse to mirror an action between bounds that are not mirrored with it."""
    bounds: Mapping[int, tuple[float, float]] = dict(
        enumerate(zip(spec.action.low, spec.action.high, strict=True), 1)
    )
    for place, entry in enumerate(entries, 1):
        low, high = bounds[abs(entry)]
        if bounds[place] != ((low, high) if entry > 0 else (-high, -low)):
            raise ConfigError(
                f"{key}: actions between bounds need mirrored ones; entry {place} has "
                f"{list(bounds[place])}, entry {abs(entry)} {[low, high]}"
            )
