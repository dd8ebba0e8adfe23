"""Isaac Lab tasks behind the contract: ManagerBased, Direct, DirectMARL; 2.x and 3.0.

With its two neighbours (`isaac_launch` starts the simulation, `isaac_cfg` reads and sets its
configuration) the only code that imports isaaclab. Lives in the process that hosts the simulation.
"""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.agent_cfgs.choice import settings_from
from isaac_hydra_ext.envs.contract import (
    EnvSpec,
    StepResult,
    TaskDescription,
    TensorSpec,
    copy_obs,
)
from isaac_hydra_ext.envs.curriculum import curriculum_restored, read_curriculum
from isaac_hydra_ext.envs.isaac import cfg as isaac_cfg
from isaac_hydra_ext.envs.isaac import ids as isaac_ids
from isaac_hydra_ext.envs.isaac.cfg import TaskConfigs
from isaac_hydra_ext.envs.isaac.host import host_settings_kept, output_kept, time_limit
from isaac_hydra_ext.envs.isaac.launch import check_gpu, explained, get_runtime
from isaac_hydra_ext.envs.isaac.video import VideoPlan, picture, prepare_pictures
from isaac_hydra_ext.envs.spaces import read_action_space
from isaac_hydra_ext.errors import EnvError, RenderError
from isaac_hydra_ext.system.garbage import garbage_uncollected, leave_garbage

_said: list[str] = []  # what `describe` kept off the terminal, for the worker's log
CLOSE_S = 20.0
SEED_LIMIT = 2**31  # Isaac Lab hands the seed on to numpy's 32-bit one


def open_task(env_config: EnvConfig, device: str, worker: int) -> TaskConfigs:
    """Start the simulation, once a process, and resolve the task's configuration.

    Args:
        env_config: The `env` section.
        device: Of the simulation; `auto` is the task's own.
        worker: Its index.

    Raises:
        IsaacHydraExtError: One line about what is missing, misspelt or of the wrong type.
    """
    runtime = get_runtime(env_config, device, worker)
    task = isaac_ids.find_task(str(env_config.task), env_config.play)
    configs = isaac_cfg.resolve(env_config, task, runtime.generation, env_config.play)
    if device != "auto":
        configs.env.sim.device = device
    check_gpu(configs.env.sim.device)
    runtime.start(configs.env, configs.physics)
    return configs


@garbage_uncollected()
def describe(env_config: EnvConfig, device: str) -> TaskDescription:
    """Resolve the task and what its trainer cfgs recommend; see `TaskDescription`."""
    with output_kept(_said):
        configs = open_task(env_config, device, worker=0)
    notes = [f"tasks are missing: {line}" for line in isaac_ids.not_registered] + configs.notes
    settings: dict[str, Any] = {}
    if configs.agent is None:
        notes.append(f"{configs.task}: no agent cfg is used; this package's defaults are")
    else:
        groups = getattr(configs.env, "observations", None)
        names = list(vars(groups)) if groups is not None else None
        settings, said = settings_from(configs.agent, names)
        notes += said
    for section, values in (configs.appo or {}).items():
        settings[section] = (
            {**settings.get(section, {}), **values} if isinstance(values, Mapping) else values
        )
    where = str(configs.env.sim.device)
    if device == "auto" and where == "cuda:0":
        where = "cuda"  # Isaac Lab's word for a GPU; which one is the placement's to say
    settings["rollout"] = {**settings.get("rollout", {}), "device": where}
    about = {"task": configs.task, **{s: getattr(env_config, s) for s in isaac_cfg.SELECTORS}}
    about["physics"] = configs.chosen or env_config.physics
    return TaskDescription(
        default_num_envs=int(configs.env.scene.num_envs),
        settings=settings,
        env_config={**about, "cfg": env_config.cfg},
        notes=tuple(notes),
        authors=configs.appo or {},
    )


def make(
    env_config: EnvConfig,
    *,
    num_envs: int,
    device: str,
    seed: int,
    worker: int,
    run_dir: Path | None,
    render: bool = False,
) -> "IsaacLabVecEnv":
    """Build the vector env; see `Adapter.make`."""
    return IsaacLabVecEnv(env_config, num_envs, device, seed, worker, run_dir, render)


def list_tasks() -> list[str]:
    """Return the ids of all tasks. In 2.x this starts Kit, which may not let go."""
    get_runtime(EnvConfig(kind="isaaclab"), "cpu", worker=0)
    return isaac_ids.list_tasks()


class IsaacLabVecEnv:
    """One Isaac Lab environment."""

    @garbage_uncollected()
    def __init__(
        self,
        env_config: EnvConfig,
        num_envs: int,
        device: str,
        seed: int,
        worker: int = 0,
        run_dir: Path | None = None,
        render: bool = False,
    ) -> None:
        """Start the simulation and build the task.

        Args:
            env_config: The `env` section.
            num_envs: B.
            device: Of the simulation: cpu or cuda:N.
            seed: Isaac Lab draws start-up randomisation while it builds.
            worker: Its index.
            run_dir: Of the run; worker 0 writes `params/env.yaml` there.
            render: Start the cameras, so that `render` gives pictures.

        Raises:
            EnvError: The task cannot be built, or has a space that is not supported.
        """
        while _said:
            print(_said.pop(0), end="", flush=True)
        if render:
            launcher = {"enable_cameras": True, **env_config.launcher}
            env_config = dataclasses.replace(env_config, launcher=launcher)
        configs = open_task(env_config, device, worker)
        cfg, self._task = configs.env, configs.task
        cfg.scene.num_envs, cfg.seed, cfg.sim.device = num_envs, seed % SEED_LIMIT, device
        if run_dir is not None:
            cfg.log_dir = str(run_dir)
            if worker == 0 and not env_config.play:
                _write_cfg(cfg, run_dir / "params" / "env.yaml")
        self.notes = list(configs.notes)
        self._build(cfg, env_config, run_dir if worker == 0 else None, render)
        obs = self._groups(self._env.reset()[0])
        space = getattr(self._env, "unwrapped", self._env).single_action_space
        action, first_choice = read_action_space(space, f"env.task={self._task}: ")
        self._first_choice = torch.from_numpy(first_choice)
        self.spec = EnvSpec(
            num_envs=num_envs,
            obs={name: TensorSpec.of(value) for name, value in obs.items()},
            action=action,
            step_dt=float(self._core.step_dt),
            max_episode_length=int(self._core.max_episode_length),
            has_final_obs=self._gives_final_obs,
            finite_horizon=bool(getattr(cfg, "is_finite_horizon", False)),
            has_state=True,
            whole_state=False,
        )

    def _build(self, cfg: Any, asked: EnvConfig, run_dir: Path | None, render: bool) -> None:
        """Make the env; `_core` has the counters, `_env` is what is stepped."""
        envs = importlib.import_module("isaaclab.envs")
        multi_agent = isinstance(cfg, envs.DirectMARLEnvCfg)
        self._gives_final_obs = hasattr(cfg, "compute_final_obs")
        if self._gives_final_obs and "compute_final_obs" in asked.cfg:
            self._gives_final_obs = bool(cfg.compute_final_obs)
        elif self._gives_final_obs:
            cfg.compute_final_obs = True
        video, render_mode = self._prepare_pictures(cfg, asked, run_dir, render)
        with explained(f"env.task={self._task}"), host_settings_kept():
            self._env: Any = gym.make(self._task, cfg=cfg, render_mode=render_mode)
            self._core: Any = self._env.unwrapped
            self.task_env = self._core
            if multi_agent:
                for agent, space in self._core.action_spaces.items():
                    if not isinstance(space, spaces.Box):
                        raise EnvError(
                            f"env.task={self._task}: agent {agent!r} has the action space {space}; "
                            "of multi-agent tasks only Box is supported"
                        )
                self._env = envs.multi_agent_to_single_agent(self._core)
            if video is not None:
                self._env, said = video.recorded(self._env, lambda: picture(self._core))
                self.notes += said
        for note in self.notes:  # a worker's go to its log, and to the learner
            print(note, file=sys.stderr, flush=True)

    def _prepare_pictures(
        self, cfg: Any, asked: EnvConfig, run_dir: Path | None, render: bool
    ) -> tuple[VideoPlan | None, str | None]:
        """Return what to record, and the render mode; what cannot be drawn costs the videos."""
        films = bool(run_dir and asked.launcher.get("video"))
        video = VideoPlan.of(asked.launcher, run_dir or Path()) if films else None
        if video is None and not render:
            return None, None
        try:
            return video, prepare_pictures(cfg, asked.launcher.get("visualizer"))
        except RenderError as e:
            if render:
                raise
            self.notes.append(f"--video: no videos, {e}")
            return None, None

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        return self._groups(self._env.reset(seed=seed % SEED_LIMIT)[0])

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        """Copy everything: Isaac Lab rewrites its buffers in place."""
        if self.spec.action.kind == "discrete":
            actions_BA = actions_BA + self._first_choice.to(actions_BA.device)
        obs, reward, terminated, truncated, extras = self._env.step(actions_BA)
        terminated_B = terminated.to(torch.bool, copy=True)
        truncated_B = truncated.to(torch.bool, copy=True)
        ended = bool((terminated_B | truncated_B).any())
        final_obs = None
        if ended and self._gives_final_obs and bool(truncated_B.any()):
            final_obs = self._groups(extras["final_obs"])
        return StepResult(
            obs=self._groups(obs),
            reward_B=reward.to(torch.float32, copy=True),
            terminated_B=terminated_B,
            truncated_B=truncated_B,
            final_obs=final_obs,
            # Between resets the dictionary still holds the last reset's numbers.
            log=read_log(extras) if ended else {},
        )

    def reset_envs(self, envs: list[int]) -> dict[str, torch.Tensor] | None:
        """Reset them alone: only ManagerBased tasks can, and those that remember nothing.

        Isaac Lab computes the observations of all envs after such a reset. Where they hold a
        history or go through a filter, the other envs' would move on by a step that was not taken.
        """
        groups = getattr(self._core.cfg, "observations", None)
        if groups is None or has_memory(groups):
            return None
        ids = torch.tensor(envs, dtype=torch.int32, device=self._core.device)
        obs = self._groups(self._core.reset(env_ids=ids)[0])
        return {group: tensor[envs] for group, tensor in obs.items()}

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """Do as rsl_rl's `init_at_random_ep_len`."""
        clock = self._core.episode_length_buf
        times = torch.randint(self.spec.max_episode_length, clock.shape, generator=generator)
        clock.copy_(times)
        return True

    def state_dict(self) -> dict[str, Any] | None:
        """Return how far the curriculum is; physics and managers offer no state."""
        return read_curriculum(self._core)

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Go on with the curriculum of `state`; episodes start anew."""
        with curriculum_restored(self._core, state):
            return self._groups(self._env.reset()[0])

    def render(self) -> np.ndarray:
        with explained("rendering"):
            frame = picture(self._core)
        if frame is None:
            raise RenderError(f"env.task={self._task}: Isaac Lab draws nothing here")
        return frame

    def close(self) -> None:
        """Close the env, within `CLOSE_S`. The app stays: its own close may never return.

        Raises:
            EnvError: It does not close.
        """
        leave_garbage()  # Isaac Lab's close would collect it
        with explained("closing the env"), time_limit(CLOSE_S, "closing the env"):
            self._env.close()

    def _groups(self, obs: Any) -> dict[str, torch.Tensor]:
        """Copy observations; nested terms become `group/term`."""
        return copy_obs({"policy": obs} if isinstance(obs, torch.Tensor) else obs)


def has_memory(groups: Any) -> bool:
    """Return whether computing a cfg's observation groups changes what the next ones will be."""
    for group in vars(groups).values():
        if getattr(group, "history_length", None):
            return True
        for term in vars(group).values() if hasattr(group, "__dict__") else ():
            if getattr(term, "history_length", 0) or getattr(term, "modifiers", None):
                return True
            if hasattr(getattr(term, "func", None), "reset"):  # a class: it may keep something
                return True
    return False


def read_log(extras: Mapping[str, Any]) -> dict[str, float]:
    """Read the scalars of `extras["log"]` (older tasks: `episode`), tagged as rsl_rl does.

    Device scalars are read in one go: each by itself would be a synchronisation.
    """
    log = extras.get("log") or extras.get("episode") or {}
    scalars: dict[str, float] = {}
    on_device: dict[str, torch.Tensor] = {}
    for key, value in log.items():
        tag = key if "/" in key else f"Episode/{key}"
        if isinstance(value, torch.Tensor):
            if value.numel() > 0:
                on_device[tag] = value.detach().float().mean()
        elif isinstance(value, (int, float, np.number)):
            scalars[tag] = float(value)
    if on_device:
        device = next(iter(on_device.values())).device
        values = torch.stack([value.to(device) for value in on_device.values()])
        scalars |= dict(zip(on_device, values.tolist(), strict=True))
    return scalars


def _write_cfg(cfg: Any, path: Path) -> None:
    """Write Isaac Lab's own cfg as its trainers do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    importlib.import_module("isaaclab.utils.io").dump_yaml(str(path), cfg)
