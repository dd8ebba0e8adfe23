"""Our Isaac Lab task with a Go1 made of mjlab's model, where NVIDIA's assets are out of reach.

`GO1_USD` names what `mujoco-usd-converter go1.xml DIR` has written. Imported by `env.imports` in
the process that hosts the simulation.
"""

import os
from typing import Any

from isaaclab.actuators import DCMotorCfg

from isaac_hydra_ext.tasks.go1_nav import isaac_registration, isaac_task

TASK = isaac_registration.TASK.format("-Local")
EVAL_TASK = isaac_registration.TASK.format("-Local-Eval")


def env_cfg() -> Any:
    return local(isaac_task.env_cfg())


def eval_env_cfg() -> Any:
    return local(isaac_task.eval_env_cfg())


def local(cfg: Any) -> Any:
    """Replace what comes from the network, and the names that the converter changes."""
    cfg.scene.robot.spawn.usd_path = os.environ["GO1_USD"]
    cfg.scene.robot.actuators = {
        "base_legs": DCMotorCfg(
            joint_names_expr=[".*_joint"],
            effort_limit=23.5,
            saturation_effort=23.5,
            velocity_limit=30.0,
            stiffness=25.0,
            damping=0.5,
            armature=0.02,
        )
    }
    cfg.scene.height_scanner.prim_path = "{ENV_REGEX_NS}/Robot/Geometry/trunk"
    cfg.scene.terrain.visual_material = None
    cfg.scene.sky_light.spawn.texture_file = None
    # There a foot is a shape of its calf.
    cfg.rewards.feet_air_time.params["sensor_cfg"].body_names = ".*_calf"
    cfg.rewards.leg_contact.params["sensor_cfg"].body_names = ".*_thigh"
    return cfg


isaac_registration.register(TASK, f"{__name__}:env_cfg")
isaac_registration.register(EVAL_TASK, f"{__name__}:eval_env_cfg")
