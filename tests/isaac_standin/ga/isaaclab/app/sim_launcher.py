"""Stand-in: where 3.0 has it."""

from isaaclab import launching


def scan(cfg: object, launcher_args: dict | None = None) -> None:
    """Fill in what the cfg leaves to the launch."""
    cfg.sim.renderer = "ovrtx"


def launch_simulation(env_cfg: object, launcher_args: dict) -> object:
    """As `launching`, with a cfg that is filled in."""
    scan(env_cfg, launcher_args)
    return launching.launch_simulation(env_cfg, launcher_args)
