"""Stand-in for what 2.x has: no presets, `variants` instead."""

SUFFIX, PREFIXES, FINAL_OBS = "-v0", {}, False


def physics() -> None:
    """PhysX, whatever is asked."""


def with_presets(cfg: object) -> None:
    """Give the cfg a group of variants."""
    cfg.variants = {"limits": {"narrow": (0.1, 0.2)}}
