"""Stand-in for what both 3.0 have: presets."""

from isaaclab_tasks.utils.preset_cfg import PhysicsPresets

SUFFIX, PREFIXES, FINAL_OBS = "-v0", {}, False


def physics() -> object:
    """Kit's by default, Newton's as a preset."""
    return PhysicsPresets()


def with_presets(cfg: object) -> None:
    """Nothing more."""
