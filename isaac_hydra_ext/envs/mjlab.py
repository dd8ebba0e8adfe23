"""mjlab tasks (Isaac Lab's API on MuJoCo-Warp) behind the contract. The only file that imports it.

Lives in the process that hosts the simulation. Truncations bootstrap from V(s_t): with
`auto_reset=False` there are final observations, but an end costs a pass of the physics and
changes what is drawn after it (`benchmarks/mjlab_final_obs.py`). Of the env's state
the curriculum alone is kept: physics offers none.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import settings_from_rsl_rl
from isaac_hydra_ext.envs.contract import (
    ActionSpec,
    EnvSpec,
    StepResult,
    TaskDescription,
    TensorSpec,
    copy_obs,
)
from isaac_hydra_ext.envs.curriculum import curriculum_restored, read_curriculum
from isaac_hydra_ext.envs.imports import import_packages
from isaac_hydra_ext.envs.viewing import Player
from isaac_hydra_ext.errors import (
    EnvNotFoundError,
    MissingDependencyError,
    RenderError,
    did_you_mean,
    shown,
)
from isaac_hydra_ext.system.garbage import garbage_uncollected, leave_garbage

DEFAULT_NUM_ENVS = 64


def _import_task(env_config: EnvConfig) -> Any:
    """Import mjlab and `env.imports`, check the task's name, return mjlab's registry.

    Raises:
        MissingDependencyError: mjlab is not installed.
        EnvNotFoundError: No such task; names near ones.
    """
    try:
        registry = importlib.import_module("mjlab.tasks.registry")
        importlib.import_module("mjlab.tasks")
    except ImportError as e:
        raise MissingDependencyError(
            f"env.kind=mjlab: {e}; install it with: pip install 'isaac-hydra-ext[mjlab]'"
        ) from e
    import_packages(env_config.imports)
    tasks = registry.list_tasks()
    if env_config.task not in tasks:
        hint = did_you_mean(str(env_config.task), tasks) or f"; there are {', '.join(tasks)}"
        raise EnvNotFoundError(f"env.task={env_config.task}: not registered with mjlab{hint}")
    return registry


@garbage_uncollected()
def describe(env_config: EnvConfig, device: str = "auto") -> TaskDescription:
    """Resolve the task and read its rsl_rl settings; see `TaskDescription`."""
    registry = _import_task(env_config)
    settings, notes = {}, ()
    if env_config.agent != "none":
        settings, notes = settings_from_rsl_rl(asdict(registry.load_rl_cfg(env_config.task)))
    env_cfg = registry.load_env_cfg(env_config.task)
    about = {"task": env_config.task, "decimation": env_cfg.decimation}
    about["episode_length_s"] = env_cfg.episode_length_s
    return TaskDescription(max(env_cfg.scene.num_envs, DEFAULT_NUM_ENVS), settings, about, notes)


def make(
    env_config: EnvConfig,
    *,
    num_envs: int,
    device: str,
    seed: int,
    render: bool = False,
    **_: object,
) -> "MjlabVecEnv":
    """Build the vector env; see `Adapter.make`."""
    return MjlabVecEnv(env_config, num_envs, device, seed, render)


def list_tasks() -> list[str]:
    """Return all registered tasks."""
    importlib.import_module("mjlab.tasks")
    return importlib.import_module("mjlab.tasks.registry").list_tasks()


class MjlabVecEnv:
    """One mjlab `ManagerBasedRlEnv`."""

    @garbage_uncollected()
    def __init__(
        self, env_config: EnvConfig, num_envs: int, device: str, seed: int, render: bool = False
    ) -> None:
        """Build the task.

        Args:
            env_config: `task` and `imports` are read.
            num_envs: B.
            device: Of the simulation: cpu or cuda:N.
            seed: mjlab draws start-up randomisation while it builds.
            render: Draw off screen, with what MUJOCO_GL names (mjlab's default: egl).

        Raises:
            RenderError: There is no such renderer here.
        """
        registry = _import_task(env_config)
        from mjlab.envs import ManagerBasedRlEnv

        cfg = registry.load_env_cfg(env_config.task)
        cfg.scene.num_envs = num_envs
        cfg.seed = seed % 2**31  # mjlab passes it on to numpy's 32-bit seed
        if render and device == "cpu":
            # A CPU would take seconds for the shadows of one picture.
            cfg.viewer.enable_shadows = cfg.viewer.enable_reflections = False
        try:
            self._env = ManagerBasedRlEnv(
                cfg, device=device, render_mode="rgb_array" if render else None
            )
        except Exception as e:
            if not render:
                raise
            gl = os.environ.get("MUJOCO_GL", "not set")
            raise RenderError(
                f"env.task={env_config.task}: cannot be built to be drawn with MUJOCO_GL={gl} "
                f"({type(e).__name__}: {shown(e)}); set it to egl (apt-get install libegl1) or to "
                "osmesa (apt-get install libosmesa6); appo doctor says what is here"
            ) from e
        self.task_env = self._env
        obs, _ = self._env.reset()
        space = self._env.single_action_space
        dim = int(space.shape[0])
        bounds = [
            torch.as_tensor(b, dtype=torch.float64).expand(dim) for b in (space.low, space.high)
        ]
        self.spec = EnvSpec(
            num_envs=num_envs,
            obs={name: TensorSpec.of(value) for name, value in copy_obs(obs).items()},
            action=ActionSpec("continuous", dim, *(tuple(b.tolist()) for b in bounds)),
            step_dt=float(self._env.step_dt),
            max_episode_length=int(self._env.max_episode_length),
            has_final_obs=False,
            finite_horizon=bool(cfg.is_finite_horizon),
            has_state=True,
            whole_state=False,
        )

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        obs, _ = self._env.reset(seed=seed % 2**31)
        return copy_obs(obs)

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        """Copy everything: mjlab rewrites its buffers in place."""
        obs, reward, terminated, truncated, extras = self._env.step(actions_BA)
        return StepResult(
            obs=copy_obs(obs),
            reward_B=reward.to(torch.float32, copy=True),
            terminated_B=terminated.to(torch.bool, copy=True),
            truncated_B=truncated.to(torch.bool, copy=True),
            final_obs=None,
            # Filled only in steps with a reset, empty in the others. Its tensors are new ones.
            log=dict(extras["log"]),
        )

    def reset_envs(self, envs: list[int]) -> dict[str, torch.Tensor]:
        rows = torch.tensor(envs, device=self._env.device)
        obs, _ = self._env.reset(env_ids=rows)
        return {group: value[rows] for group, value in copy_obs(obs).items()}

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """Do as rsl_rl's `init_at_random_ep_len`."""
        clock = self._env.episode_length_buf
        times = torch.randint(self.spec.max_episode_length, clock.shape, generator=generator)
        clock.copy_(times)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return how far the curriculum is; physics and managers offer no state."""
        return read_curriculum(self._env)

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Go on with the curriculum of `state`; episodes start anew."""
        with curriculum_restored(self._env, state):
            return copy_obs(self._env.reset()[0])

    def render(self) -> np.ndarray:
        """Draw with the task's own camera and picture size."""
        frame = self._env.render()
        assert frame is not None, "made to render"
        return frame

    def view(self, player: Player, open_page: Callable[[], Any]) -> None:
        """Have mjlab's own viewer show it, with its plots and commands; see `ViewableEnv`."""
        viewer = importlib.import_module("mjlab.viewer")
        viewed = _Viewed(self._env, player)
        viewed.reset()
        page = open_page()
        viewer.ViserPlayViewer(viewed, lambda obs: obs, viser_server=page).run(catch_sigint=False)

    def close(self) -> None:
        """Close the simulation."""
        leave_garbage()
        self._env.close()


class _Viewed:
    """The env as mjlab's viewer has it; acting is the player's, in `step`."""

    def __init__(self, env: Any, player: Player) -> None:
        self.unwrapped, self._player = env, player
        self.num_envs, self.device = env.num_envs, env.device
        # MuJoCo's -15 degrees look down from above; mjviser, which mjlab hands them to, has +15.
        above = replace(env.cfg.viewer, elevation=abs(env.cfg.viewer.elevation))
        self.cfg = SimpleNamespace(viewer=above)

    def get_observations(self) -> None:
        """Nothing: the player keeps them."""

    def step(self, action: None) -> None:
        # The page can reset envs by itself, with the command that is set there.
        begun_B = self.unwrapped.episode_length_buf == 0
        if begun_B.any():
            self._player.begin(copy_obs(self.unwrapped.obs_buf), begun_B)
        self._player.step()

    def reset(self) -> None:
        self._player.reset()

    def close(self) -> None:
        """Nothing: `MjlabVecEnv.close` does."""
