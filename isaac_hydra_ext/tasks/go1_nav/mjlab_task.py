"""The task on mjlab: its Go1 on rough terrain, with targets instead of random velocities.

Imported where the simulation is hosted, through `env.imports`; registers
`Mjlab-Navigation-Unitree-Go1` and its `-Play` variant.
"""
# pyright: reportMissingImports=false
# mjlab is an extra.

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab.envs import mdp as envs_mdp
from mjlab.managers import (
    CommandTerm,
    CommandTermCfg,
    CurriculumTermCfg,
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from mjlab.tasks.registry import list_tasks, register_mjlab_task
from mjlab.tasks.velocity import mdp
from mjlab.tasks.velocity.config.go1.env_cfgs import unitree_go1_rough_env_cfg
from mjlab.tasks.velocity.config.go1.rl_cfg import unitree_go1_ppo_runner_cfg
from mjlab.terrains import (
    FlatPatchSamplingCfg,
    HfDiscreteObstaclesTerrainCfg,
    SubTerrainCfg,
    TerrainEntity,
    TerrainEntityCfg,
    TerrainGeneratorCfg,
)

from isaac_hydra_ext.tasks.go1_nav.navigation import (
    CONTACT_FORCE,
    NUM_LEVELS,
    Navigation,
    touching_links,
)

TASK = "Mjlab-Navigation-Unitree-Go1"
COMMAND = "twist"  # the name that mjlab's own terms of the Go1 read
LEGS = 4
LEG_SENSORS = ("thigh_ground_touch", "shank_ground_touch")
FOREVER_S = 1e9


class TargetCommand(CommandTerm):
    """The velocity command towards the target.

    Attributes:
        books: See `Navigation`.
    """

    cfg: "TargetCommandCfg"

    def __init__(self, cfg: "TargetCommandCfg", env: ManagerBasedRlEnv) -> None:
        """Make it; the terrain must have flat patches of the name `cfg.patches`."""
        super().__init__(cfg, env)
        self._robot = env.scene["robot"]
        self._terrain = terrain_of(env)
        self._patches_RCP2 = self._terrain.flat_patches[cfg.patches][..., :2]
        self.books = Navigation(self.num_envs, env.step_dt, self.device)

    @property
    def command(self) -> torch.Tensor:
        return self.books.command_B3

    @property
    def measured(self) -> Navigation:
        """`books`, with this step's positions in them."""
        position_B2 = self._robot.data.root_link_pos_w[:, :2]
        fell_B = self._env.termination_manager.terminated
        self.books.measure(self._env.common_step_counter, position_B2, fell_B)
        return self.books

    def reset(self, env_ids: torch.Tensor | slice | None) -> dict[str, float]:
        assert isinstance(env_ids, torch.Tensor)
        fell_B = self._env.termination_manager.terminated
        success = self.books.begin(env_ids, fell_B)
        self._env.extras["log"]["Metrics/success_rate"] = success
        return super().reset(env_ids)

    def _update_metrics(self) -> None:
        """There are none but `Metrics/success_rate`."""

    def _resample_command(self, env_ids: torch.Tensor) -> None:
        """`_update_command` draws: only there are the positions those of the new episode."""

    def _update_command(self, env_ids: torch.Tensor | None) -> None:
        data, terrain = self._robot.data, self._terrain
        patches_BP2 = self._patches_RCP2[terrain.terrain_levels, terrain.terrain_types]
        self.books.advance(data.root_link_pos_w[:, :2], data.heading_w, patches_BP2)


@dataclass(kw_only=True)
class TargetCommandCfg(CommandTermCfg):
    """Configuration of `TargetCommand`."""

    patches: str = "target"
    """Name of the terrain's flat patches that may be targets."""

    def build(self, env: ManagerBasedRlEnv) -> TargetCommand:
        return TargetCommand(self, env)


def command_of(env: ManagerBasedRlEnv) -> TargetCommand:
    """Return the command term."""
    command = env.command_manager.get_term(COMMAND)
    assert isinstance(command, TargetCommand)
    return command


def terrain_of(env: ManagerBasedRlEnv) -> TerrainEntity:
    """Return the generated terrain."""
    assert env.scene.terrain is not None
    return env.scene.terrain


def progress(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Reward term: see `progress_rate`."""
    return command_of(env).measured.progress_B


def arrival(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Reward term: 1 in the step in which a target is reached."""
    return command_of(env).measured.arrived_B.float()


def leg_contact(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Reward term: how many thighs and shanks press on the terrain."""
    total_B = torch.zeros(env.num_envs, device=env.device)
    for name in LEG_SENSORS:
        force_BGH = env.scene[name].data.force_history.norm(dim=3)
        total_B += touching_links(force_BGH.reshape(env.num_envs, LEGS, -1))
    return total_B


def terrain_levels(env: ManagerBasedRlEnv, env_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Curriculum term: see `Navigation.level_moves`."""
    terrain = terrain_of(env)
    terrain.update_env_origins(env_ids, *command_of(env).measured.level_moves(env_ids))
    levels = terrain.terrain_levels.float()
    return {"mean": levels.mean(), "max": levels.max()}


def hold_levels(
    env: ManagerBasedRlEnv, env_ids: torch.Tensor, levels: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Curriculum term: env i stays on `levels[i % len(levels)]`."""
    terrain = terrain_of(env)
    assert terrain.terrain_origins is not None
    held_B = torch.tensor(levels, device=env.device)[env_ids % len(levels)]
    terrain.terrain_levels[env_ids] = held_B
    terrain.env_origins[env_ids] = terrain.terrain_origins[held_B, terrain.terrain_types[env_ids]]
    return {"mean": terrain.terrain_levels.float().mean()}


def outcome(env: ManagerBasedRlEnv) -> torch.Tensor:
    """Observation term: see `Navigation.outcome_BK`."""
    return command_of(env).books.outcome_BK


def obstacle_terrain() -> TerrainEntityCfg:
    """Return 10 levels of 10 tiles, 8 x 8 m; obstacles grow with the level."""
    targets = FlatPatchSamplingCfg(
        num_patches=64, patch_radius=0.4, max_height_diff=0.01, z_range=(-0.01, 0.01)
    )
    tile = {
        "num_obstacles": 12,
        "obstacle_width_range": (0.3, 0.8),
        "obstacle_height_range": (0.0, 0.5),
        "obstacle_height_mode": "fixed",
        "platform_width": 2.0,
        "base_thickness_ratio": 4.0,  # the flat level would be a sheet of 5 mm
        "flat_patch_sampling": {"target": targets},
    }
    # A generator with a curriculum makes one column for each kind of tile.
    columns: dict[str, SubTerrainCfg] = {
        f"obstacles_{i}": HfDiscreteObstaclesTerrainCfg(**tile) for i in range(10)
    }
    generator = TerrainGeneratorCfg(
        size=(8.0, 8.0),
        num_rows=NUM_LEVELS,
        border_width=20.0,
        curriculum=True,
        sub_terrains=columns,
    )
    return TerrainEntityCfg(
        terrain_type="generator", terrain_generator=generator, max_init_terrain_level=0
    )


def env_cfg(play: bool = False, levels: Sequence[int] = ()) -> ManagerBasedRlEnvCfg:
    """Return the task's configuration.

    Args:
        play: No noise, no pushes, any level.
        levels: As `play`, but the envs stay on these levels in turn, and an observation group
            `outcome` tells how each env's last episode ended.
    """
    cfg = unitree_go1_rough_env_cfg()
    # Go1s thrown among the highest obstacles have up to 60 constraints: mjlab's 1,500 would only
    # be launched over, and so would its 500 contacts a sensor.
    cfg.sim.njmax, cfg.sim.contact_sensor_maxmatch = 300, 64
    cfg.scene.terrain = obstacle_terrain()
    cfg.commands = {COMMAND: TargetCommandCfg(resampling_time_range=(FOREVER_S, FOREVER_S))}
    cfg.rewards["progress"] = RewardTermCfg(func=progress, weight=1.0)
    cfg.rewards["arrival"] = RewardTermCfg(func=arrival, weight=10.0)
    cfg.rewards["leg_contact"] = RewardTermCfg(func=leg_contact, weight=-1.0)
    cfg.terminations["illegal_contact"] = TerminationTermCfg(
        func=mdp.illegal_contact,
        params={"sensor_name": "trunk_ground_touch", "force_threshold": CONTACT_FORCE},
    )
    cfg.terminations["fell_over"] = TerminationTermCfg(
        func=mdp.bad_orientation, params={"limit_angle": math.radians(70.0)}
    )
    cfg.curriculum = {"terrain_levels": CurriculumTermCfg(func=terrain_levels)}
    if play or levels:
        cfg.observations["actor"].enable_corruption = False
        cfg.events.pop("push_robot")
        cfg.curriculum = {}
    if levels:
        cfg.curriculum["levels"] = CurriculumTermCfg(
            func=hold_levels, params={"levels": tuple(levels)}
        )
        terms: dict[str, Any] = {"outcome": ObservationTermCfg(func=outcome)}
        cfg.observations["outcome"] = ObservationGroupCfg(terms=terms)
    elif play:
        randomize = EventTermCfg(func=envs_mdp.randomize_terrain, mode="reset", params={})
        # The tile is chosen before the robot is put on it.
        cfg.events = {"randomize_terrain": randomize, **cfg.events}
    return cfg


def register(task: str, play: bool = False, levels: Sequence[int] = ()) -> str:
    """Register a variant of the task under `task`, once; arguments as of `env_cfg`."""
    if task not in list_tasks():
        rl_cfg = unitree_go1_ppo_runner_cfg()
        rl_cfg.experiment_name = "go1_nav"
        rl_cfg.max_iterations = 1500
        register_mjlab_task(
            task_id=task,
            env_cfg=env_cfg(play, levels),
            play_env_cfg=env_cfg(play or not levels, levels),
            rl_cfg=rl_cfg,
        )
    return task


register(TASK)
register(f"{TASK}-Play", play=True)
