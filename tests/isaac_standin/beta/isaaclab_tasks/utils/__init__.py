"""Stand-in; its names are loaded when they are asked for, as in the real one."""


def __getattr__(name: str) -> object:
    if name == "launch_simulation":
        from isaaclab_tasks.utils.sim_launcher import launch_simulation

        return launch_simulation
    raise AttributeError(name)
