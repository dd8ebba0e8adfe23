"""Registers the task with Isaac Lab, without importing any of it: its ids, and where its cfgs are.

Called, as an entry point, where the simulation is hosted, once Isaac Lab's own tasks are there.
What the ids name, `isaac_task`, is imported when one of them is asked for: before Kit has started
(3.0) Isaac Lab's environments need not be there.
"""

from typing import Any

import gymnasium as gym

from isaac_hydra_ext.envs.isaac.ids import (
    APPO_ENTRY,
    ENV_ENTRY,
    find_task,
    trained_task,
    unavailable,
)
from isaac_hydra_ext.errors import EnvNotFoundError

TASK = "Isaac-Velocity-Sber-Unitree-Go1{}-v0"
ROUGH_TASK = "Isaac-Velocity-Rough-Unitree-Go1-v0"
MODULE = "isaac_hydra_ext.tasks.go1_nav.isaac_task"
VARIANTS = {"": "env_cfg", "-Play": "play_env_cfg", "-Eval": "eval_env_cfg"}


def appo_cfg() -> dict[str, Any]:
    """Return what this trainer is to know of the task; the rest is the rough task's rsl_rl cfg."""
    return {"experiment": {"name": "go1_nav"}}


def register(task: str, make_cfg: str) -> None:
    """Register `make_cfg`, a "module:function", under `task`, once, with the rough task's agent.

    Raises:
        EnvNotFoundError: The installed Isaac Lab has no rough task.
    """
    if task in gym.registry:
        return
    agents = {
        key: value
        for key, value in gym.spec(find_task(ROUGH_TASK)).kwargs.items()
        if key.startswith("rsl_rl_")
    }
    gym.register(
        id=task,
        entry_point="isaaclab.envs:ManagerBasedRLEnv",
        disable_env_checker=True,
        kwargs={ENV_ENTRY: make_cfg, APPO_ENTRY: f"{__name__}:appo_cfg", **agents},
    )


def register_all() -> None:
    """Register the task, its `-Play` variant and the one that `evaluate` plays, where they can be.

    Where not, `find_task` tells why to who asks for one of them.
    """
    for variant, function in VARIANTS.items():
        task = TASK.format(variant)
        try:
            register(task, f"{MODULE}:{function}")
        except EnvNotFoundError:
            unavailable[trained_task(task)] = f"this Isaac Lab has no {ROUGH_TASK} to make it of"
