"""What a user typed, or set for pictures, that the run does not read. In the learner's process."""

from collections.abc import Collection, Mapping, Sequence

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.typed import typed_keys
from isaac_hydra_ext.system import entry_points

# Of PPO's knobs those that a student has too, and of the policy's those of what it has not.
SHARED = ("ppo.precision", "ppo.cuda_graphs", "ppo.max_bad_updates")
OF_PPO_ALONE = (
    "policy.critic_hidden_dims", "policy.critic_activation", "policy.normalize_critic_obs",
    "policy.normalize_values", "policy.share_encoders", "policy.learn_std",
    "policy.obs_groups.critic",
)  # fmt: skip


def typed_in_vain(config: RunConfig, typed: Sequence[str]) -> list[str]:
    """Return a line for the user that names the knobs, or none.

    Files may serve both algorithms, so only what was typed is told. A registered algorithm may
    say what it reads of `ppo` and `distillation`: its `make.knobs`, knobs and whole sections.

    Args:
        config: The run's.
        typed: The user's override tokens.

    Raises:
        ConfigError: A token that Hydra cannot read, or an algorithm that cannot be imported.
    """
    keys = list(dict.fromkeys(key for token in typed for key in typed_keys(token)))
    if config.has_teacher:
        vain = [k for k in keys if k.startswith("ppo.") and k not in SHARED or k in OF_PPO_ALONE]
        instead = "a student has distillation.*; of PPO's it reads " + ", ".join(SHARED)
    elif config.algorithm.kind == "ppo":
        vain = [key for key in keys if key.startswith("distillation.")]
        instead = "for a student say algorithm.kind=distillation"
    else:
        vain = [key for key in keys if key.startswith(("ppo.", "distillation."))]
        if not vain:
            return []
        make = entry_points.load("algorithm.kind", config.algorithm.kind, entry_points.ALGORITHMS)
        if (read := getattr(make, "knobs", None)) is None:
            return []
        read = (read,) if isinstance(read, str) else read
        vain = [k for k in vain if not any(f"{k}.".startswith(f"{knob}.") for knob in read)]
        instead = f"of ppo and distillation it reads {', '.join(read) or 'nothing'}"
    if not vain:
        return []
    return [f"no effect with algorithm.kind={config.algorithm.kind}: {', '.join(vain)} ({instead})"]


def pictures_in_vain(
    config: RunConfig,
    pictures: Mapping[str, str],
    actor: Collection[str],
    critic: Collection[str],
) -> list[str]:
    """Return a line for each knob of pictures that is set and does nothing in this env.

    Args:
        config: The run's.
        pictures: The groups that an encoder reads, and their dtypes as the env gives them.
        actor: The groups that the actor reads.
        critic: The groups that the critic reads; none of a student.
    """
    rollout, stack = config.rollout, config.rollout.frame_stack
    floats = [group for group, dtype in pictures.items() if dtype.startswith("float")]
    of_actor = [group for group in pictures if group in actor]
    of_both = [group for group in of_actor if group in critic]
    group = "group that policy.encoders names"
    lines = []
    if config.policy.share_encoders and not of_both and not config.has_teacher:
        lines.append(f"policy.share_encoders=true (actor and critic have no {group} in common)")
    if rollout.image_storage == "float16" and not floats:
        lines.append(f"rollout.image_storage=float16 (no {group} is of floats)")
    if stack > 1 and not of_actor:
        lines.append(f"rollout.frame_stack={stack} (the actor reads no {group})")
    return [f"no effect here: {line}" for line in lines]
