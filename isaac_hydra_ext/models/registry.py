"""Which policy serves which `policy.kind`. Used wherever a policy is built."""

from dataclasses import replace

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.models.actor_critic import (
    ActorCritic,
    choose_obs_groups,
    group_and_terms,
)
from isaac_hydra_ext.models.encoders import with_every_picture
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.system import entry_points


def make_policy(config: RunConfig, spec: EnvSpec, device: str | torch.device = "cpu") -> Policy:
    """Build the run's policy with the weights that its seed gives: the same in every process.

    Args:
        config: `policy`, `experiment.seed`, and of `rollout` the knobs `frame_stack`,
            `image_storage` and `burn_in` are read.
        spec: Of one collector's env.
        device: Where it acts or is learned.

    Raises:
        ConfigError: `policy` does not go with the env's spaces, or a registered policy cannot be
            imported.
    """
    kind, seed, asked = config.policy.kind, config.experiment.seed, config.policy
    if config.has_teacher:  # its loss says nothing of a std, which weight decay would shrink
        asked = replace(asked, learn_std=False)
    if kind in entry_points.BUILT_IN[entry_points.POLICIES]:
        network: type[ActorCritic] = ActorCritic
        if config.policy.recurrent.kind:
            # Here, as it takes PyTorch's compiler, which takes each process a second to import.
            from isaac_hydra_ext.models.recurrent import RecurrentActorCritic as network
        images, stack = stored_images(config, spec), config.rollout.frame_stack
        if stack > 1:
            from isaac_hydra_ext.models.stacks import StackingActorCritic as network
        seen = seen_spec(config, replace(spec, obs={**spec.obs, **images}))
        policy = network(asked, seen, seed, device, critic=not config.has_teacher)
        policy.images = images
        policy.frame_stack = stack
        policy.burn_in = config.rollout.burn_in
        return policy
    make = entry_points.load("policy.kind", kind, entry_points.POLICIES)
    return make(asked, spec, seed, device)


def seen_spec(config: RunConfig, spec: EnvSpec) -> EnvSpec:
    """Return a spec as the networks see it: the actor's pictures in stacks [K, ...], if so asked.

    Args:
        config: `policy` and `rollout.frame_stack` are read.
        spec: Of one collector's env, or of its rollouts.
    """
    stack = config.rollout.frame_stack
    if stack == 1:
        return spec
    actor, _ = choose_obs_groups(config.policy.obs_groups, list(spec.obs))
    stacks = {
        group: replace(spec.obs[group], shape=(stack, *spec.obs[group].shape))
        for group in stored_images(config, spec)
        if group in actor
    }
    return replace(spec, obs={**spec.obs, **stacks})


def stored_images(config: RunConfig, spec: EnvSpec) -> dict[str, TensorSpec]:
    """Return the groups that have an encoder, as rollouts hold them: floats in half, if so asked.

    Pictures that a teacher alone reads are such groups too.

    Args:
        config: `policy`, `rollout.image_storage` and `teacher_groups` are read.
        spec: Of one collector's env.
    """
    available = list(spec.obs)
    actor, critic = choose_obs_groups(config.policy.obs_groups, available)
    read = actor if config.has_teacher else [*actor, *critic]
    encoded = {*with_every_picture(config.policy, spec, read).encoders}
    for group in (g for name in config.teacher_groups for g in group_and_terms(name, available)):
        if group not in actor and len(spec.obs[group].shape) >= 3:
            encoded.add(group)
    half = config.rollout.image_storage == "float16"
    return {
        g: replace(s, dtype="float16") if half and s.dtype in ("float32", "float64") else s
        for g, s in spec.obs.items()
        if g in encoded
    }
