"""Stand-in tasks: one of each kind that the adapter must tell apart."""

import gymnasium as gym

from isaaclab_tasks.utils.generation import id_of

TASKS = {
    "Cartpole-Direct": ("DirectRLEnv", "CartpoleCfg", "MlpCfg"),
    "Velocity-Flat-Unitree-Go1": ("ManagerBasedRLEnv", "Go1Cfg", "OldLayoutCfg"),
    "Velocity-Rough-Unitree-Go1": ("ManagerBasedRLEnv", "Go1Cfg", "OldLayoutCfg"),
    "Velocity-Rough-Unitree-Go1-Play": ("ManagerBasedRLEnv", "Go1PlayCfg", "OldLayoutCfg"),
    "Nested-Groups": ("ManagerBasedRLEnv", "NestedCfg", None),
    "Pick-One": ("DirectRLEnv", "DiscreteCfg", None),
    "Pick-Two": ("DirectRLEnv", "MultiDiscreteCfg", None),
    "Bounded-Box": ("DirectRLEnv", "BoundedCfg", None),
    "Cart-Double-Pendulum-Direct": ("DirectMARLEnv", "MultiAgentCfg", None),
    "Discrete-Agents": ("DirectMARLEnv", "DiscreteAgentsCfg", None),
    "Kit-Only": ("DirectRLEnv", "KitOnlyCfg", None),
    "Memory": ("DirectRLEnv", "CartpoleCfg", "RecurrentCfg"),
    "Recommended": ("DirectRLEnv", "CartpoleCfg", "MlpCfg"),
}

for name, (env, cfg, agent) in TASKS.items():
    kwargs = {"env_cfg_entry_point": f"isaaclab_tasks.cfgs:{cfg}"}
    if agent:
        kwargs["rsl_rl_cfg_entry_point"] = f"isaaclab_tasks.cfgs:{agent}"
        kwargs["skrl_cfg_entry_point"] = "isaaclab_tasks.cfgs:SkrlCfg"
    if name == "Recommended":
        kwargs["appo_cfg_entry_point"] = "isaaclab_tasks.cfgs:AppoCfg"
    if (task := id_of(name)) is not None:
        gym.register(
            id=task,
            entry_point=f"isaaclab.envs:{env}",
            disable_env_checker=True,
            kwargs=kwargs,
        )
