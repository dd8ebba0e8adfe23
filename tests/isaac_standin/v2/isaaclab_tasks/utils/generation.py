"""Stand-in for what 2.x has: no presets, `variants` instead."""


def id_of(name: str) -> str:
    """Return the id of a task."""
    return f"Isaac-{name}-v0"


def physics(newton: bool = False) -> None:
    """PhysX, whatever is asked."""


def with_presets(cfg: object) -> None:
    """Give the cfg a group of variants."""
    cfg.variants = {"limits": {"narrow": (0.1, 0.2)}}
