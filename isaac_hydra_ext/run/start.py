"""What a run is made of and says of itself before its first iteration, and what traces it.

Runs in the learner's main thread.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.config.placed import picture
from isaac_hydra_ext.config.reading import Settings
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.unread import pictures_in_vain
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.envs.registry import auto_is_gpu
from isaac_hydra_ext.models.actor_critic import group_and_terms
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.rollout.source import RolloutSource
from isaac_hydra_ext.run.ranks import Ranks
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.system.tracing import Tracer
from isaac_hydra_ext.terminal.console import RunConsole


class Opened(NamedTuple):
    """What there is of a run before its envs are built.

    Attributes:
        config: The complete one.
        run_dir: Where this rank writes.
        console: Shows what happens.
        stop: The user's signals.
        source: Of the rollouts.
        ranks: Those that learn together.
        resumed: What the run goes on from.
        settings: What the user has set.
    """

    config: RunConfig
    run_dir: Path
    console: RunConsole
    stop: StopSignals
    source: RolloutSource
    ranks: Ranks
    resumed: Checkpoint | None
    settings: Settings


def about(
    config: RunConfig,
    spec: EnvSpec,
    policy: Policy,
    device: torch.device,
    warn: Callable[[str], None],
) -> Iterator[str]:
    """Yield the lines.

    Args:
        config: The complete one.
        spec: Of one collector's env.
        policy: That is trained.
        device: The learner's.
        warn: Called with obs groups that nobody reads, and knobs of pictures without effect.
    """
    yield (
        f"N_buffer = {config.num_collectors} x {spec.num_envs} x {config.rollout.steps_per_env} = "
        f"{config.n_buffer} samples; {policy.num_params:,} parameters; learner on {device}"
    )
    if (ranks := config.seat.size) > 1:
        yield (
            f"{ranks} ranks learn together, each from as many samples of its own: "
            f"{ranks * config.n_buffer:,} an iteration; what another writes is in rank_N/"
        )
    yield from picture(config, auto_is_gpu(config.env), spec.num_envs)
    if not config.has_teacher:
        yield f"truncated episodes bootstrap from {spec.bootstrap}"
    actor, critic = policy.actor_groups, policy.critic_groups
    teachers = [g for name in config.teacher_groups for g in group_and_terms(name, [*spec.obs])]
    if config.has_teacher:
        groups = _named(actor, spec, policy), _named(teachers, spec, policy)
        yield f"the student reads {groups[0]}; its teacher {groups[1]}"
    elif list(actor) == list(critic):
        yield f"actor and critic read {_named(actor, spec, policy)}"
    else:
        groups = _named(actor, spec, policy), _named(critic, spec, policy)
        yield f"the actor reads {groups[0]}; the critic {groups[1]}"
    for group in spec.obs:
        if group not in (*actor, *critic, *teachers):
            warn(f"nobody reads the observation group {group} (policy.obs_groups)")
    pictures = {group: spec.obs[group].dtype for group in policy.images}
    if config.policy.kind in entry_points.BUILT_IN[entry_points.POLICIES]:
        for line in pictures_in_vain(config, pictures, actor, critic):
            warn(line)


def _named(names: Sequence[str], spec: EnvSpec, policy: Policy) -> str:
    """Return groups with their shapes: `policy (48)`, `camera (3x96x96)`, `scan (4x5 = 20)`."""
    shown = []
    for name in names:
        shape = spec.obs[name].shape if name in spec.obs else ()
        size = "x".join(map(str, shape))
        if len(shape) > 1 and name not in policy.images:  # the networks read it flattened
            size += f" = {math.prod(shape):,}"
        shown.append(f"{name} ({size})" if shape else name)
    return ", ".join(shown)


def learner_tracer(
    config: RunConfig,
    run_dir: Path,
    device: torch.device,
    first: int,
    tell: Callable[[str], None],
) -> Tracer:
    """Return what traces the learner's process, which hosts the simulation with W = 0.

    Args:
        config: The complete one.
        run_dir: The trace goes there.
        device: The learner's.
        first: The iteration that the run begins with.
        tell: Told if there will be nothing to trace.
    """
    devices = [device.type, *([] if config.num_workers else [config.rollout.device])]
    on_gpu = any(name.startswith("cuda") for name in devices)
    last = config.experiment.max_iterations
    tracer = Tracer(config.logging.profile, last, run_dir, "learner", on_gpu, tell)
    tracer.check(first)
    return tracer
