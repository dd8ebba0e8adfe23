"""Which adapter serves which `env.kind`. Imports an adapter only in the process that needs it."""

from isaac_hydra_ext.config import EnvConfig, RunConfig
from isaac_hydra_ext.envs.vec_env import TaskDescription, VecEnv


def check_before_spawn(env_config: EnvConfig) -> None:
    """Check in the learner's process what needs no simulator: a Gymnasium id.

    Packages in `env.imports` may start a simulator, so with them the check is left to worker 0.

    Raises:
        EnvNotFoundError: The id is not registered.
    """
    if env_config.kind == "gym" and not env_config.imports:
        from isaac_hydra_ext.envs.gym_env import check_registered

        check_registered(env_config)


def describe_task(env_config: EnvConfig) -> TaskDescription:
    """Resolve the task without building it. Runs where the simulation will."""
    if env_config.kind == "mjlab":
        from isaac_hydra_ext.envs.mjlab import describe
    else:
        from isaac_hydra_ext.envs.gym_env import describe
    return describe(env_config)


def make_env(config: RunConfig, seed: int) -> VecEnv:
    """Build the vector env of B envs. Runs where the simulation will.

    Args:
        config: After `complete`.
        seed: For whatever the env draws while it is built.
    """
    num_envs = config.rollout.envs_per_worker
    assert num_envs is not None
    if config.env.kind == "mjlab":
        from isaac_hydra_ext.envs.mjlab import MjlabVecEnv

        return MjlabVecEnv(config.env, num_envs, config.rollout.device, seed)
    from isaac_hydra_ext.envs.gym_env import GymVecEnv

    return GymVecEnv(config.env, num_envs)
