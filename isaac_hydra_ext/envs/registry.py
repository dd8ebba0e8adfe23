"""Which adapter serves which `env.kind`. Imports an adapter only in the process that needs it."""

from pathlib import Path
from typing import Protocol

from isaac_hydra_ext.config.checks import BUILT_IN_ENVS
from isaac_hydra_ext.config.schema import EnvConfig, RunConfig
from isaac_hydra_ext.envs.contract import TaskDescription, VecEnv
from isaac_hydra_ext.errors import EnvError
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.activity import tell

WITH_KERNELS = ("mjlab", "isaaclab")


class Adapter(Protocol):
    """What a package registers in the entry-point group `isaac_hydra_ext.envs`: a module.

    The `env` section is its own to read: `id`, `task`, `kwargs` and `imports` are free for it.
    """

    def describe(self, env_config: EnvConfig, device: str) -> TaskDescription:
        """Resolve the task without building it; see `TaskDescription`.

        Args:
            env_config: The `env` section.
            device: Of the simulation: auto, cpu or cuda:N.
        """
        ...

    def make(
        self,
        env_config: EnvConfig,
        *,
        num_envs: int,
        device: str,
        seed: int,
        worker: int,
        run_dir: Path | None,
        **render: bool,
    ) -> VecEnv:
        """Build the vector env; arguments as of `make_env`, `device` is cpu or cuda:N.

        `render=True` is passed only where pictures are wanted: an adapter that gives none need not
        know the word.
        """
        ...


def load_adapter(kind: str) -> Adapter:
    """Import the adapter that a package has registered.

    Raises:
        ConfigError: It cannot be imported.
        EnvError: It has no `describe` or no `make`.
    """
    adapter = entry_points.load("env.kind", kind, entry_points.ENVS)
    for name in ("describe", "make"):
        if not callable(getattr(adapter, name, None)):
            raise EnvError(f"env.kind={kind}: {adapter!r} has no function {name!r}")
    return adapter


def needs_simulator(env_config: EnvConfig) -> bool:
    """Return whether resolving the task imports a simulator, or code that might.

    If not, the task can be described before any process starts.
    """
    return env_config.kind != "gym" or bool(env_config.imports)


def describe_task(env_config: EnvConfig, device: str = "auto") -> TaskDescription:
    """Resolve the task without building it.

    Runs where the simulation will, or, if it needs none, in the learner's process.

    Args:
        env_config: The `env` section.
        device: Of the simulation, for envs that must know it from the start.

    Raises:
        EnvNotFoundError: No such task; names near ones.
    """
    tell(f"imports {env_config.kind} and reads the task")
    if env_config.kind not in BUILT_IN_ENVS:
        return load_adapter(env_config.kind).describe(env_config, device)
    if env_config.kind == "isaaclab":
        from isaac_hydra_ext.envs.isaac import adapter as isaac_lab

        return isaac_lab.describe(env_config, device)
    if env_config.kind == "mjlab":
        from isaac_hydra_ext.envs.mjlab import describe
    else:
        from isaac_hydra_ext.envs.gym import describe
    return describe(env_config)


def make_env(
    config: RunConfig,
    seed: int,
    worker: int = 0,
    run_dir: Path | None = None,
    render: bool = False,
) -> VecEnv:
    """Build the vector env of B envs. Runs where the simulation will.

    Args:
        config: After `complete`.
        seed: For whatever the env draws while it is built.
        worker: Index of the worker, 0 with W = 0.
        run_dir: Where the env may write; None where there is no run.
        render: `VecEnv.render` will be asked for pictures.
    """
    num_envs = config.rollout.envs_per_worker
    assert num_envs is not None
    kernels = "; a first start compiles kernels" if config.env.kind in WITH_KERNELS else ""
    tell(f"builds {num_envs} envs{kernels}")
    if config.env.kind not in BUILT_IN_ENVS:
        return load_adapter(config.env.kind).make(
            config.env,
            num_envs=num_envs,
            device=config.rollout.device,
            seed=seed,
            worker=worker,
            run_dir=run_dir,
            **({"render": True} if render else {}),
        )
    if config.env.kind == "isaaclab":
        from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv

        device = config.rollout.device
        return IsaacLabVecEnv(config.env, num_envs, device, seed, worker, run_dir, render)
    if config.env.kind == "mjlab":
        from isaac_hydra_ext.envs.mjlab import MjlabVecEnv

        return MjlabVecEnv(config.env, num_envs, config.rollout.device, seed, render)
    from isaac_hydra_ext.envs.gym import GymVecEnv

    return GymVecEnv(config.env, num_envs, render)
