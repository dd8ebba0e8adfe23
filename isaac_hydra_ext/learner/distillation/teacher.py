"""Whom a student learns from: the policy of another run. Runs in the learner's process.

The teacher answers the observations that the student acted on, once an iteration, all of a rollout
together; the workers know nothing of it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.checkpoints.saved_policy import config_of, load_weights
from isaac_hydra_ext.config.checks import as_path
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models.actor_critic import group_and_terms
from isaac_hydra_ext.models.policy import Samples
from isaac_hydra_ext.models.registry import make_policy

KEY = "distillation.teacher="
GROUPS_KEY = "distillation.teacher_groups"


def settle_teacher(config: RunConfig) -> None:
    """Name the teacher's checkpoint, and the groups of this env that it reads, in `config`.

    A resumed run, another rank and a worker then mean the same, also while the teacher trains on.

    Args:
        config: The complete one, of a run with a teacher.

    Raises:
        CheckpointError: There is none, or it does not load.
    """
    path = as_path(KEY.rstrip("="), str(config.distillation.teacher))
    checkpoint = find_checkpoint(str(path), path, key=KEY).checkpoint
    config.distillation.teacher = str(checkpoint.path.absolute())
    if config.distillation.teacher_groups is None:
        config.distillation.teacher_groups = list(Teacher(checkpoint, "cpu").groups)


def make_teacher(config: RunConfig, spec: EnvSpec, device: torch.device) -> "Teacher":
    """Load the teacher and check that it knows this env.

    Args:
        config: Of the student's run, settled.
        spec: Of its env.
        device: Where to answer.

    Raises:
        ConfigError: It reads other observations than the env gives, or its actions mean another
            thing.
        CheckpointError: It does not load.
    """
    teacher = Teacher(load_checkpoint(Path(str(config.distillation.teacher))), device)
    teacher.read(config.distillation.teacher_groups, spec.obs)
    teacher.check_action(config, spec)
    return teacher


class Teacher:
    """A trained policy that says what it would do.

    Attributes:
        groups: Obs groups that it reads, by the names that its own env has for them.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device) -> None:
        """Build its networks on `device`.

        Raises:
            CheckpointError: The weights are not those of its configuration.
        """
        self._named = f"{KEY}{checkpoint.path}"
        self._config = config_of(checkpoint)
        self._spec = EnvSpec.from_json(checkpoint.meta["spec"])
        self._policy = make_policy(self._config, self._spec, device)
        load_weights(self._policy, checkpoint)
        self.groups: Sequence[str] = list(self._policy.actor_groups)
        self._here: Sequence[str] = self.groups

    def read(self, here: Sequence[str] | None, available: Mapping[str, TensorSpec]) -> None:
        """Read its groups from this env's.

        Args:
            here: This env's names of `groups`, in their order; None: the same.
            available: The groups that this env gives.

        Raises:
            ConfigError: A group that it does not give, or gives in another shape.
        """
        if self._policy.initial_state(1):
            raise ConfigError(f"{self._named}: has a memory (policy.recurrent); a student may")
        asked = self.groups if here is None else here
        self._here = [g for name in asked for g in group_and_terms(name, [*available]) or [name]]
        if len(self._here) != len(self.groups):
            raise ConfigError(
                f"{GROUPS_KEY}=[{', '.join(self._here)}]: the teacher reads {len(self.groups)}: "
                f"{', '.join(self.groups)}"
            )
        for own, name in zip(self.groups, self._here, strict=True):
            wanted, given = self._spec.obs.get(own), available.get(name)
            if wanted is None:
                raise ConfigError(f"{self._named}: reads {own}, which no observation is")
            if given != wanted:
                found = "there is no such group" if given is None else f"is {_shown(given)}"
                raise ConfigError(
                    f"{self._named}: reads {own}, {_shown(wanted)}; here {name}: {found}, of "
                    f"{', '.join(available)}; name this env's groups for it: {GROUPS_KEY}=[...]"
                )

    def check_action(self, config: RunConfig, spec: EnvSpec) -> None:
        """Check that its mean action is what the student's should be.

        Args:
            config: Of the student's run.
            spec: Of its env.

        Raises:
            ConfigError: Another size or kind of action, or another squashing.
        """
        theirs, ours = self._spec.action, spec.action
        if "discrete" in (theirs.kind, ours.kind):
            raise ConfigError(f"{self._named}: only continuous actions are distilled")
        if theirs.dim != ours.dim:
            raise ConfigError(
                f"{self._named}: its actions are of {theirs.dim} numbers, this env's of {ours.dim}"
            )
        squash = self._config.policy.squash
        if squash != config.policy.squash:
            raise ConfigError(
                f"{self._named}: was trained with policy.squash={squash}, here it is "
                f"{config.policy.squash}: the same number would be another action"
            )
        if squash == "tanh" and (theirs.low, theirs.high) != (ours.low, ours.high):
            raise ConfigError(
                f"{self._named}: policy.squash=tanh, and its env's bounds are others: the same "
                "number would be another action"
            )

    @torch.no_grad()
    def mean_action(self, obs: Samples) -> torch.Tensor:
        """Return its mean actions [N, A], before squashing; observations [N, ...] of this env."""
        own = {group: obs[here] for group, here in zip(self.groups, self._here, strict=True)}
        return self._policy.distribution.mode(self._policy.action_params(own)).float()


def _shown(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"
