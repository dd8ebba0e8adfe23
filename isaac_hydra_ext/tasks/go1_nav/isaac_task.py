"""The task on Isaac Lab: its Go1 on rough terrain, with targets instead of random velocities.

Imported where the simulation is hosted, when somebody asks for what `isaac_registration` registers:
`Isaac-Velocity-Sber-Unitree-Go1-v0`, its `-Play` variant and the one that `evaluate` plays. The
robot, its terms and its presets are those of the installed Isaac Lab's rough task.
"""
# pyright: reportMissingImports=false
# Isaac Lab has a Python of its own.

from collections.abc import Sequence
from typing import Any

import torch
from isaaclab.envs import ManagerBasedRLEnv, ManagerBasedRLEnvCfg
from isaaclab.managers import (
    CommandTerm,
    CommandTermCfg,
    CurriculumTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from isaaclab.terrains import (
    FlatPatchSamplingCfg,
    HfDiscreteObstaclesTerrainCfg,
    TerrainGeneratorCfg,
    TerrainImporter,
)
from isaaclab_tasks.utils.parse_cfg import load_cfg_from_registry

from isaac_hydra_ext.envs.isaac.ids import find_task
from isaac_hydra_ext.tasks.go1_nav.isaac_registration import ROUGH_TASK
from isaac_hydra_ext.tasks.go1_nav.navigation import (
    NUM_LEVELS,
    Navigation,
    is_outside,
    touching_links,
)

COMMAND = "base_velocity"  # the name that Isaac Lab's own terms of the Go1 read
FOREVER_S = 1e9
TILE_M, BORDER_M, MARGIN_M = 8.0, 20.0, 3.0


def as_tensor(data: Any) -> torch.Tensor:
    """Return an asset's data as a tensor: 3.0 wraps its arrays, 2.x does not."""
    return getattr(data, "torch", data)


def as_rows(env_ids: Any, num_envs: int, device: str) -> torch.Tensor:
    """Return env ids as a tensor: where all envs are meant, 3.0 says `slice(None)`, 2.x None."""
    every = torch.arange(num_envs, device=device)
    return every if env_ids is None else every[env_ids]


class TargetCommand(CommandTerm):
    """The velocity command towards the target.

    Attributes:
        books: See `Navigation`.
    """

    def __init__(self, cfg: CommandTermCfg, env: ManagerBasedRLEnv) -> None:
        """Make it; the terrain must have flat patches named `target`."""
        super().__init__(cfg, env)
        self._robot, self._terrain = env.scene["robot"], terrain_of(env)
        self._patches_RCP2 = self._terrain.flat_patches["target"][..., :2]
        self.books = Navigation(self.num_envs, env.step_dt, self.device)

    @property
    def command(self) -> torch.Tensor:
        return self.books.command_B3

    @property
    def measured(self) -> Navigation:
        """`books`, with this step's positions in them."""
        fell_B = self._env.termination_manager.terminated
        self.books.measure(self._env.common_step_counter, self._position_B2(), fell_B)
        return self.books

    def reset(self, env_ids: torch.Tensor | slice | None = None) -> dict[str, float]:
        envs = as_rows(env_ids, self.num_envs, self.device)
        success = self.books.begin(envs, self._env.termination_manager.terminated)
        self._env.extras["log"]["Metrics/success_rate"] = success
        return super().reset(envs)

    def _position_B2(self) -> torch.Tensor:
        return as_tensor(self._robot.data.root_pos_w)[:, :2]

    def _update_metrics(self) -> None:
        """There are none but `Metrics/success_rate`."""

    def _resample_command(self, env_ids: Sequence[int]) -> None:
        """Draw: the robots stand where their episodes begin, and `compute` follows no reset."""
        self._update_command()

    def _update_command(self) -> None:
        terrain, heading_B = self._terrain, as_tensor(self._robot.data.heading_w)
        patches_BP2 = self._patches_RCP2[terrain.terrain_levels, terrain.terrain_types]
        self.books.advance(self._position_B2(), heading_B, patches_BP2)


def command_of(env: ManagerBasedRLEnv) -> TargetCommand:
    """Return the command term."""
    command = env.command_manager.get_term(COMMAND)
    assert isinstance(command, TargetCommand)
    return command


def terrain_of(env: ManagerBasedRLEnv) -> TerrainImporter:
    """Return the generated terrain."""
    assert env.scene.terrain is not None
    return env.scene.terrain


def progress(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Reward term: see `progress_rate`."""
    return command_of(env).measured.progress_B


def arrival(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Reward term: 1 in the step in which a target is reached."""
    return command_of(env).measured.arrived_B.float()


def leg_contact(env: ManagerBasedRLEnv, sensor_cfg: SceneEntityCfg) -> torch.Tensor:
    """Reward term: how many links of `sensor_cfg` press on something."""
    history = as_tensor(env.scene.sensors[sensor_cfg.name].data.net_forces_w_history)
    return touching_links(history[:, :, sensor_cfg.body_ids].norm(dim=3).transpose(1, 2))


def left_terrain(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Termination term: nearer than `MARGIN_M` to the end of the ground."""
    half_m = 0.5 * NUM_LEVELS * TILE_M + BORDER_M - MARGIN_M
    return is_outside(as_tensor(env.scene["robot"].data.root_pos_w)[:, :2], half_m)


def terrain_levels(env: ManagerBasedRLEnv, env_ids: torch.Tensor | slice) -> torch.Tensor:
    """Curriculum term: see `Navigation.level_moves`. Returns the mean level."""
    terrain, envs = terrain_of(env), as_rows(env_ids, env.num_envs, env.device)
    terrain.update_env_origins(envs, *command_of(env).measured.level_moves(envs))
    return terrain.terrain_levels.float().mean()


def hold_levels(
    env: ManagerBasedRLEnv, env_ids: torch.Tensor | slice, levels: Sequence[int]
) -> torch.Tensor:
    """Curriculum term: env i stays on `levels[i % len(levels)]`. Returns the mean level."""
    terrain, envs = terrain_of(env), as_rows(env_ids, env.num_envs, env.device)
    held_B = torch.tensor(levels, device=env.device)[envs % len(levels)]
    terrain.terrain_levels[envs] = held_B
    terrain.env_origins[envs] = terrain.terrain_origins[held_B, terrain.terrain_types[envs]]
    return terrain.terrain_levels.float().mean()


def outcome(env: ManagerBasedRLEnv) -> torch.Tensor:
    """Observation term: see `Navigation.outcome_BK`."""
    return command_of(env).books.outcome_BK


def obstacle_tiles() -> TerrainGeneratorCfg:
    """Return 10 levels of 10 tiles, 8 x 8 m; obstacles grow with the level."""
    reach = (-0.5 * TILE_M + 0.4, 0.5 * TILE_M - 0.4)
    targets = FlatPatchSamplingCfg(
        num_patches=64,
        patch_radius=[0.1, 0.25, 0.4],  # rings of rays: one alone would miss what it surrounds
        max_height_diff=0.01,
        x_range=reach,
        y_range=reach,
        z_range=(-0.01, 0.01),
    )
    tile = HfDiscreteObstaclesTerrainCfg(
        num_obstacles=12,
        obstacle_width_range=(0.3, 0.8),
        obstacle_height_range=(0.0, 0.5),
        obstacle_height_mode="fixed",
        platform_width=2.0,
        flat_patch_sampling={"target": targets},
    )
    return TerrainGeneratorCfg(
        size=(TILE_M, TILE_M),
        border_width=BORDER_M,
        num_rows=NUM_LEVELS,
        num_cols=NUM_LEVELS,
        horizontal_scale=0.1,
        vertical_scale=0.005,
        slope_threshold=0.75,
        curriculum=True,
        sub_terrains={"obstacles": tile},
    )


def env_cfg() -> ManagerBasedRLEnvCfg:
    """Return the task's configuration."""
    cfg: Any = load_cfg_from_registry(find_task(ROUGH_TASK), "env_cfg_entry_point")
    cfg.scene.terrain.terrain_generator = obstacle_tiles()
    cfg.scene.terrain.max_init_terrain_level = 0
    forever = (FOREVER_S, FOREVER_S)
    command = CommandTermCfg(class_type=TargetCommand, resampling_time_range=forever)
    setattr(cfg.commands, COMMAND, command)
    legs = SceneEntityCfg("contact_forces", body_names=[".*_thigh", ".*_calf"])
    cfg.rewards.progress = RewardTermCfg(func=progress, weight=1.0)
    cfg.rewards.arrival = RewardTermCfg(func=arrival, weight=10.0)
    cfg.rewards.leg_contact = RewardTermCfg(
        func=leg_contact, weight=-1.0, params={"sensor_cfg": legs}
    )
    cfg.terminations.left_terrain = TerminationTermCfg(func=left_terrain, time_out=True)
    cfg.curriculum.terrain_levels = CurriculumTermCfg(func=terrain_levels)
    return cfg


def play_env_cfg() -> ManagerBasedRLEnvCfg:
    """Return `env_cfg` without noise, pushes and curriculum, on any level."""
    cfg: Any = env_cfg()
    cfg.scene.num_envs = 50
    cfg.scene.terrain.max_init_terrain_level = None
    cfg.observations.policy.enable_corruption = False
    cfg.events.base_external_force_torque = None
    cfg.events.push_robot = None
    cfg.curriculum.terrain_levels = None
    return cfg


def eval_env_cfg() -> ManagerBasedRLEnvCfg:
    """Return `play_env_cfg` on held levels, with an observation group that tells outcomes."""
    cfg: Any = play_env_cfg()
    cfg.curriculum.levels = CurriculumTermCfg(func=hold_levels, params={"levels": [0]})
    cfg.observations.outcome = ObservationGroupCfg()
    cfg.observations.outcome.outcome = ObservationTermCfg(func=outcome)
    return cfg
