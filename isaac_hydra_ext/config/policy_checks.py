"""What the policy's knobs must be together. Runs in the learner's process, before any worker."""

from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError, shown


def check_policy(policy: PolicyConfig) -> None:
    """Check the distribution and its std.

    Raises:
        ConfigError: The first finding.
    """
    kind, std_range = policy.distribution, policy.std_range
    if kind == "beta" and policy.squash != "none":
        raise ConfigError(
            f"policy.squash={policy.squash}: Beta's actions are within the env's bounds already; "
            "use policy.squash=none with policy.distribution=beta"
        )
    if kind != "gaussian" and not policy.learn_std:
        raise ConfigError(
            f"policy.learn_std=false: the std of policy.distribution={kind} is a network's; fixed "
            "is that of policy.distribution=gaussian"
        )
    if std_range is None:
        return
    if kind == "beta":
        raise ConfigError("policy.std_range: Beta has none; use it with a Gaussian, or set null")
    if len(std_range) != 2 or not std_range[0] < std_range[1]:
        raise ConfigError(
            f"policy.std_range={shown(std_range)}: must be the least and the largest std, the "
            "larger one last, e.g. [0.05,1.0]"
        )
    if not std_range[0] <= policy.init_std <= std_range[1]:
        raise ConfigError(
            f"policy.init_std={policy.init_std:g}: outside of policy.std_range={shown(std_range)}"
        )


def check_burn_in(config: RunConfig) -> None:
    """Check that there is a memory to burn in, and that a rollout has so many steps.

    Raises:
        ConfigError: The first finding.
    """
    rollout, where = config.rollout, f"rollout.burn_in={config.rollout.burn_in}"
    if not rollout.burn_in:
        return
    if not config.policy.recurrent.kind:
        raise ConfigError(f"{where}: computes a memory's state anew; set policy.recurrent.kind too")
    if rollout.burn_in > rollout.steps_per_env:
        raise ConfigError(
            f"{where}: more than the {rollout.steps_per_env} steps of the rollout before "
            "(rollout.steps_per_env)"
        )
    for key, found, only in (
        ("policy.kind", config.policy.kind, ("actor_critic",)),
        ("algorithm.kind", config.algorithm.kind, ("ppo", "distillation")),
    ):
        if found not in only:
            raise ConfigError(f"{where}: with {key}={' or '.join(only)} alone, not {found}")
