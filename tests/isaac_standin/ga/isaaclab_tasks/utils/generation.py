"""Stand-in for 3.0: no -v0, contributed tasks apart, final observations on request."""

from isaaclab_tasks.utils.preset_cfg import PhysicsPresets

SUFFIX, PREFIXES, FINAL_OBS = "", {"Nested-Groups": "IsaacContrib"}, True


def physics() -> object:
    """Kit's by default, Newton's as a preset."""
    return PhysicsPresets()


def with_presets(cfg: object) -> None:
    """Nothing more."""
