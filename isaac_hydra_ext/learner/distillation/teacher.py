"""Whom a student learns from: the policy of another run, or an exported one.

Runs in the learner's process. The teacher answers the observations that the student acted on, once
an iteration, all of a rollout together; the workers know nothing of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from isaac_hydra_ext.checkpoints.exported import OnnxPolicy
from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.checkpoints.saved_policy import config_of, load_weights
from isaac_hydra_ext.config.checks import as_path
from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models.actor_critic import group_and_terms
from isaac_hydra_ext.models.distributions import Gaussian
from isaac_hydra_ext.models.policy import Samples, State
from isaac_hydra_ext.models.registry import make_policy

KEY = "distillation.teacher="
GROUPS_KEY = "distillation.teacher_groups"
ONNX = "policy.onnx"
UNSQUASHED = "policy.squash=none"
LARGEST = 1.0 - 1e-6  # a squashed action, in its own unit, whose mean is still a number


def settle_teacher(config: RunConfig) -> None:
    """Name the teacher's file, and the groups of this env that it reads, in `config`.

    A resumed run, another rank and a worker then mean the same, also while the teacher trains on.

    Args:
        config: The complete one, of a run with a teacher.

    Raises:
        CheckpointError: There is none, or it does not load.
        ExportError: An exported one is damaged.
    """
    path = as_path(KEY.rstrip("="), str(config.distillation.teacher))
    if (path / ONNX).is_file():
        path = path / ONNX
    elif path.suffix != ".onnx":
        path = find_checkpoint(str(path), path, key=KEY).checkpoint.path
    config.distillation.teacher = str(path.absolute())
    if config.distillation.teacher_groups is None:
        config.distillation.teacher_groups = list(load_teacher(path, torch.device("cpu")).groups)


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
        ExportError: An exported one is damaged.
    """
    teacher = load_teacher(Path(str(config.distillation.teacher)), device)
    teacher.read(config.distillation.teacher_groups, spec.obs)
    teacher.check_action(config, spec)
    return teacher


def load_teacher(path: Path, device: torch.device) -> "Teacher":
    """Load a checkpoint's policy or an exported one; see `make_teacher`."""
    return (_exported if path.suffix == ".onnx" else _of_run)(path, device)


def _of_run(path: Path, device: torch.device) -> "Teacher":
    checkpoint = load_checkpoint(path)
    config, spec = config_of(checkpoint), EnvSpec.from_json(checkpoint.meta["spec"])
    policy = make_policy(config, spec, device)
    load_weights(policy, checkpoint)
    # As its own rollouts held them: pictures in half, maybe, where these do not.
    dtypes = {g: getattr(torch, s.dtype) for g, s in {**spec.obs, **policy.images}.items()}

    def answer(obs: Samples, state: State) -> tuple[torch.Tensor, State]:
        own = {group: x.to(dtypes[group]) for group, x in obs.items()}
        acted = policy.act(own, state, None)
        return acted.action_BA, acted.state

    groups = {g: spec.obs[g] for g in policy.actor_groups if g in spec.obs}
    unit, fresh = _unit(config.policy), policy.initial_state(1)
    return Teacher(str(path), groups, spec.action, unit, answer, fresh)


def _exported(path: Path, device: torch.device) -> "Teacher":
    """Load what `appo export` wrote. It acts on the CPU, whatever the device: the host waits."""
    policy = OnnxPolicy(path.parent)
    about = policy.about["action"]
    stacks = any(o.get("frame_stack", 1) > 1 for o in policy.about["obs"])
    if stacks or policy.about.get("state"):
        what = "sees stacks of pictures" if stacks else "has a memory"
        raise ConfigError(f"{KEY}{path}: {what}; name the run that it was exported from")
    groups = {o["group"]: TensorSpec(tuple(o["shape"]), o["dtype"]) for o in policy.about["obs"]}
    low = tuple(-torch.inf if x is None else float(x) for x in about["low"])
    high = tuple(torch.inf if x is None else float(x) for x in about["high"])
    action = ActionSpec(about["kind"], about["dim"], low, high, tuple(about["nvec"]))
    squashed = Gaussian(action, True, None, device) if about["squash"] == "tanh" else None

    def answer(obs: Samples, state: State) -> tuple[torch.Tensor, State]:
        acted = policy.act({group: x.cpu().numpy() for group, x in obs.items()})
        env_action = torch.from_numpy(acted).to(device)
        if squashed is None:
            return env_action, state
        unit_action = (env_action - squashed.center) / squashed.scale
        return unit_action.clamp(-LARGEST, LARGEST).atanh(), state

    unit = f"policy.squash={about['squash']}"
    return Teacher(str(path), groups, action, unit, answer, on_host=True)


@dataclass
class Teacher:
    """A trained policy that says what it would do.

    Attributes:
        path: Of its file.
        groups: Obs groups that it reads, by the names that its own env has for them.
        action: Of its env.
        unit: Of its mean actions: the knob that says how they become the env's.
        answer: Own group -> [N, ...], and what it remembers, to its mean actions [N, A], before
            squashing, and what it then remembers.
        fresh: What it remembers of one env at an episode's start; empty without memory.
        on_host: Whether it answers on the CPU, so that no CUDA graph can hold it.
    """

    path: str
    groups: Mapping[str, TensorSpec]
    action: ActionSpec
    unit: str
    answer: Callable[[Samples, State], tuple[torch.Tensor, State]]
    fresh: State = field(default_factory=dict)
    on_host: bool = False

    def __post_init__(self) -> None:
        """Read its groups by their own names."""
        self.here: Sequence[str] = list(self.groups)

    def read(self, here: Sequence[str] | None, available: Mapping[str, TensorSpec]) -> None:
        """Read its groups from this env's.

        Args:
            here: This env's names of `groups`, in their order; None: the same.
            available: The groups that this env gives.

        Raises:
            ConfigError: A group that it does not give, or gives in another shape.
        """
        asked = self.groups if here is None else here
        self.here = [g for name in asked for g in group_and_terms(name, [*available]) or [name]]
        if len(self.here) != len(self.groups):
            raise ConfigError(
                f"{GROUPS_KEY}=[{', '.join(self.here)}]: the teacher reads {len(self.groups)}: "
                f"{', '.join(self.groups)}"
            )
        for (own, wanted), name in zip(self.groups.items(), self.here, strict=True):
            given = available.get(name)
            if given != wanted:
                found = "there is no such group" if given is None else f"is {_shown(given)}"
                raise ConfigError(
                    f"{KEY}{self.path}: reads {own}, {_shown(wanted)}; here {name}: {found}, of "
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
        theirs, ours, unit = self.action, spec.action, _unit(config.policy)
        if "discrete" in (theirs.kind, ours.kind):
            raise ConfigError(f"{KEY}{self.path}: only continuous actions are distilled")
        if theirs.dim != ours.dim:
            raise ConfigError(
                f"{KEY}{self.path}: its actions are of {theirs.dim} numbers, this env's of "
                f"{ours.dim}"
            )
        other = "the same number would be another action"
        if self.unit != unit:
            raise ConfigError(
                f"{KEY}{self.path}: was trained with {self.unit}, here {unit}: {other}"
            )
        if unit != UNSQUASHED and (theirs.low, theirs.high) != (ours.low, ours.high):
            raise ConfigError(f"{KEY}{self.path}: {unit}, and its env's bounds are others: {other}")

    @torch.no_grad()
    def mean_action(self, obs: Samples, state: State) -> tuple[torch.Tensor, State]:
        """Return its mean actions [N, A], before squashing, and what it remembers after them.

        Args:
            obs: Of this env, [N, ...] each.
            state: What it remembers before, of each.
        """
        own = {group: obs[here] for group, here in zip(self.groups, self.here, strict=True)}
        action, state = self.answer(own, state)
        return action.float(), state


def _unit(policy: PolicyConfig) -> str:
    """Return the knob that says how a mean action becomes the env's."""
    beta = policy.distribution == "beta"
    return "policy.distribution=beta" if beta else f"policy.squash={policy.squash}"


def _shown(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"
