"""Stand-in for 3.0: no -v0, other names, contributed tasks apart, final observations on request."""

from isaaclab_tasks.utils.preset_cfg import NewtonCfg, PhysicsPresets

CONTRIBUTED = ("Nested-Groups", "Velocity-Flat-UnitreeGo1", "Velocity-Rough-UnitreeGo1")


def id_of(name: str) -> str | None:
    """Return the id of a task; what was a `-Play` task is its `play_mode()`."""
    name = name.replace("Unitree-Go1", "UnitreeGo1")
    name = name.replace("Cart-Double-Pendulum-Direct", "Pendulum-MARL-Direct")
    if name.endswith("-Play"):
        return None
    return f"{'IsaacContrib' if name in CONTRIBUTED else 'Isaac'}-{name}"


def physics(newton: bool = False) -> object:
    """Return presets: Kit's by default or, in most of the first tasks, Newton's."""
    return PhysicsPresets(default=NewtonCfg()) if newton else PhysicsPresets()


def with_presets(cfg: object) -> None:
    """Nothing more."""
