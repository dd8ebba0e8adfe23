"""Stand-in envs: no physics, Isaac Lab's habits.

An env's observation is [episode clock, drawn at the reset, last action]. It terminates on an action
above 0.9 and is truncated by its time limit. All buffers are rewritten in place.
"""

import copy
import math
import os
import time

import gymnasium as gym
import numpy as np
import torch

from isaaclab import state
from isaaclab.utils.configclass import configclass

if state.needs_kit_first and "kit" not in state.started:
    raise ModuleNotFoundError("No module named 'omni.kit'")


@configclass
class SimCfg:
    """Stand-in."""

    dt: float = 1 / 120
    device: str = "cuda:0"
    physics: object = None
    renderer: str = "auto_rtx"
    visualizer_cfgs: list = []


@configclass
class SceneCfg:
    """Stand-in."""

    num_envs: int = 4096
    env_spacing: float = 4.0


@configclass
class DirectRLEnvCfg:
    """What all stand-in cfgs have."""

    decimation: int = 2
    episode_length_s: float = 5.0
    is_finite_horizon: bool = False
    seed: int | None = None
    log_dir: str | None = None
    sim: SimCfg = SimCfg()
    scene: SceneCfg = SceneCfg()
    action_space: object = 1
    actor_groups: list = ["policy"]
    nested: bool = False
    usd_path: str = ""
    on_close: str = "return"
    on_render: str = "return"
    if not state.needs_kit_first:  # 3.0
        compute_final_obs: bool = False
        video_recorders: list = []


@configclass
class ManagerBasedRLEnvCfg(DirectRLEnvCfg):
    """Stand-in."""

    observations: object = None
    terrain_levels: int = 0


@configclass
class DirectMARLEnvCfg(DirectRLEnvCfg):
    """Stand-in."""

    possible_agents: list = ["cart", "pole"]


class _Terrain:
    """Levels that the curriculum moves at every reset."""

    def __init__(self, num_envs: int, levels: int) -> None:
        self.terrain_levels = torch.arange(num_envs) % levels
        self.terrain_types = torch.arange(num_envs) % 3
        grid = torch.stack(torch.meshgrid(torch.arange(levels), torch.arange(3), indexing="ij"), -1)
        self.terrain_origins = torch.cat([grid, torch.zeros_like(grid[..., :1])], -1).float()
        self.env_origins = self.terrain_origins[self.terrain_levels, self.terrain_types].clone()

    def update_env_origins(
        self, env_ids: torch.Tensor, up: torch.Tensor, down: torch.Tensor
    ) -> None:
        levels = self.terrain_levels[env_ids] + 1 * up - 1 * down
        self.terrain_levels[env_ids] = levels.clip(0, self.terrain_origins.shape[0] - 1)
        self.env_origins[env_ids] = self.terrain_origins[
            self.terrain_levels[env_ids], self.terrain_types[env_ids]
        ]


class _Curriculum:
    def __init__(self, env: "DirectRLEnv") -> None:
        self._env = env

    def compute(self, env_ids: torch.Tensor | slice) -> None:
        if self._env.scene.terrain is not None:
            all_up = torch.ones(self._env.num_envs, dtype=torch.bool)[env_ids]
            self._env.scene.terrain.update_env_origins(env_ids, all_up, ~all_up)


class _Scene:
    def __init__(self, cfg: DirectRLEnvCfg) -> None:
        levels = getattr(cfg, "terrain_levels", 0)
        self.num_envs = cfg.scene.num_envs
        self.terrain = _Terrain(self.num_envs, levels) if levels else None


class _Simulation:
    """3.0 has visualizers in it, which draw."""

    def __init__(self, cfg: DirectRLEnvCfg) -> None:
        if hasattr(cfg, "video_recorders"):
            viewers = [viewer.class_type(viewer) for viewer in cfg.sim.visualizer_cfgs]
            self.visualizers = [object(), *viewers]


class DirectRLEnv(gym.Env):
    """B envs that only count."""

    def __init__(self, cfg: DirectRLEnvCfg, render_mode: str | None = None, **_: object) -> None:
        if not state.started:
            raise RuntimeError("no simulation has been launched")
        if cfg.usd_path and not os.path.exists(cfg.usd_path):
            raise FileNotFoundError(f"USD file not found at path: '{cfg.usd_path}'.")
        print("[INFO]: Base environment:")
        self.cfg, self.render_mode = cfg, render_mode
        self.scene = _Scene(cfg)
        self.common_step_counter = 0
        self.extras: dict = {}
        B, where = self.num_envs, {"device": self.device}
        self.episode_length_buf = torch.zeros(B, dtype=torch.long, **where)
        self.reset_terminated = torch.zeros(B, dtype=torch.bool, **where)
        self.reset_time_outs = torch.zeros(B, dtype=torch.bool, **where)
        self.reward_buf = torch.zeros(B, **where)
        self._drawn = torch.zeros(B, **where)
        self._action = torch.zeros(B, **where)
        self._obs_buf = torch.zeros(B, 3, **where)
        self.curriculum_manager = _Curriculum(self)
        if getattr(cfg, "video_recorders", None):
            raise ImportError("moviepy is required for video recording.")
        self.sim = _Simulation(cfg)
        self._make_spaces()
        if cfg.seed is not None:
            torch.manual_seed(cfg.seed)

    def _make_spaces(self) -> None:
        box = gym.spaces.Box(-math.inf, math.inf, (3,))
        self.single_observation_space = gym.spaces.Dict(dict.fromkeys(self.cfg.actor_groups, box))
        space = self.cfg.action_space
        if isinstance(space, int):
            space = gym.spaces.Box(-math.inf, math.inf, (space,))
        self.single_action_space = space
        self.action_space = gym.vector.utils.batch_space(space, self.num_envs)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, self.num_envs
        )

    @property
    def num_envs(self) -> int:
        return self.scene.num_envs

    @property
    def device(self) -> str:
        return self.cfg.sim.device

    @property
    def step_dt(self) -> float:
        return self.cfg.sim.dt * self.cfg.decimation

    @property
    def max_episode_length(self) -> int:
        return math.ceil(self.cfg.episode_length_s / self.step_dt - 1e-9)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        if seed is not None:
            torch.manual_seed(seed)
        self._reset_idx(self._every_env())
        return self._get_observations(), self.extras

    def _every_env(self) -> torch.Tensor | slice:
        return torch.arange(self.num_envs, device=self.device)

    def _reset_idx(self, env_ids: torch.Tensor | slice) -> None:
        self.curriculum_manager.compute(env_ids)
        self.extras["log"] = {
            "Episode_Termination/time_out": self.reset_time_outs.float().sum(),
            "success": 0.5,
            "counter": torch.tensor(float(self.common_step_counter)),
        }
        self.episode_length_buf[env_ids] = 0
        self._drawn[env_ids] = torch.rand(len(self._drawn[env_ids])).to(self.device)

    def _get_observations(self) -> dict:
        self._obs_buf[:, 0] = self.episode_length_buf
        self._obs_buf[:, 1] = self._drawn
        self._obs_buf[:, 2] = self._action
        if self.cfg.nested:
            clock, rest = self._obs_buf[:, :1], self._obs_buf[:, 1:]
            return {
                "policy": {"clock": clock, "rest": rest},
                "critic": {"clock": clock, "all": self._obs_buf},
                "subtask_terms": {"late": (clock > 2).float()},
            }
        return {group: self._obs_buf for group in self.cfg.actor_groups}

    def step(self, action: torch.Tensor) -> tuple:
        if tuple(action.shape) != (self.num_envs, gym.spaces.flatdim(self._flat_space())):
            raise ValueError(f"action of shape {tuple(action.shape)}")
        self._action[:] = action[:, 0]
        self.episode_length_buf += 1
        self.common_step_counter += 1
        self.reset_terminated[:] = self._action > 0.9
        self.reset_time_outs[:] = self.episode_length_buf >= self.max_episode_length
        self.reward_buf[:] = self._action
        ended = (self.reset_terminated | self.reset_time_outs).nonzero().squeeze(-1)
        if len(ended):
            if getattr(self.cfg, "compute_final_obs", False):
                self.extras["final_obs"] = copy.deepcopy(self._get_observations())
            self._reset_idx(ended)
        obs = self._get_observations()
        return obs, self.reward_buf, self.reset_terminated, self.reset_time_outs, self.extras

    def _flat_space(self) -> gym.Space:
        space = self.single_action_space
        if isinstance(space, gym.spaces.Discrete):
            return gym.spaces.Box(0, 1, (1,))
        if isinstance(space, gym.spaces.MultiDiscrete):
            return gym.spaces.Box(0, 1, space.nvec.shape)
        return space

    def render(self) -> np.ndarray | None:
        if self.cfg.on_render == "raise":
            raise RuntimeError("no display")
        if self.render_mode != "rgb_array" or hasattr(self.cfg, "video_recorders"):
            return None
        return np.full((6, 8, 3), int(self.common_step_counter), np.uint8)

    def close(self) -> None:
        if self.cfg.on_close == "hang":
            time.sleep(3600)
        if self.cfg.on_close == "exit":
            os._exit(0)
        if self.cfg.on_close == "raise":
            raise RuntimeError("the stage is gone already")


class ManagerBasedRLEnv(DirectRLEnv):
    """The same, under the other name; some of its envs can be reset by themselves."""

    def _every_env(self) -> torch.Tensor | slice:
        return super()._every_env() if state.needs_kit_first else slice(None)  # 3.0's word for all

    def reset(
        self,
        seed: int | None = None,
        env_ids: torch.Tensor | None = None,
        options: dict | None = None,
    ) -> tuple:
        if env_ids is None:
            return super().reset(seed)
        self._reset_idx(env_ids.long())
        return self._get_observations(), self.extras


class DirectMARLEnv(DirectRLEnv):
    """Two agents; everything is a dict by agent."""

    def _make_spaces(self) -> None:
        self.possible_agents = self.cfg.possible_agents
        box = gym.spaces.Box(-math.inf, math.inf, (1,))
        self.action_spaces = dict.fromkeys(self.possible_agents, self.cfg.action_space or box)
        if isinstance(self.cfg.action_space, int):
            self.action_spaces = dict.fromkeys(self.possible_agents, box)
        self.observation_spaces = dict.fromkeys(
            self.possible_agents, gym.spaces.Box(-math.inf, math.inf, (3,))
        )
        self.single_action_space = box

    def _by_agent(self, value: object) -> dict:
        return dict.fromkeys(self.possible_agents, value)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        obs, extras = super().reset(seed)
        return self._by_agent(obs["policy"]), extras

    def step(self, action: dict) -> tuple:
        obs, reward, terminated, truncated, extras = super().step(action["cart"])
        by = self._by_agent
        if "final_obs" in extras:  # of each agent; 2.x has none
            final = extras.pop("final_obs")["policy"]
            extras |= {agent: {"final_obs": final} for agent in self.possible_agents}
        return by(obs["policy"]), by(reward), by(terminated), by(truncated), extras


def multi_agent_to_single_agent(env: DirectMARLEnv) -> DirectRLEnv:
    """Join the agents; the counters stay on the inner env."""

    class Env(DirectRLEnv):
        def __init__(self, env: DirectMARLEnv) -> None:
            self.env, self.cfg, self.scene = env, env.cfg, env.scene
            agents = env.possible_agents
            self.single_action_space = gym.spaces.flatten_space(
                gym.spaces.Tuple([env.action_spaces[a] for a in agents])
            )

        def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
            obs, extras = self.env.reset(seed)
            return {"policy": torch.cat(list(obs.values()), -1)}, extras

        def step(self, action: torch.Tensor) -> tuple:
            parts = {a: action[:, i : i + 1] for i, a in enumerate(self.env.possible_agents)}
            obs, reward, terminated, truncated, extras = self.env.step(parts)
            if "final_obs" in extras.get("cart", {}):
                final = [extras[agent]["final_obs"] for agent in self.env.possible_agents]
                extras = {**extras, "final_obs": {"policy": torch.cat(final, -1)}}
            return (
                {"policy": torch.cat(list(obs.values()), -1)},
                sum(reward.values()),
                math.prod(terminated.values()).to(torch.bool),
                math.prod(truncated.values()).to(torch.bool),
                extras,
            )

        def close(self) -> None:
            self.env.close()

    return Env(env)
