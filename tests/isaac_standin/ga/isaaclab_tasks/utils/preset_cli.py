"""Stand-in: the names that a task's selectors take."""

import enum

from isaaclab_tasks.utils.parse_cfg import load_cfg_from_registry
from isaaclab_tasks.utils.preset_groups import collect_presets


class PresetTarget(enum.Enum):
    """The selectors."""

    PHYSICS = "physics"
    RENDERER = "renderer"
    DOMAIN = "presets"


def enumerate_task_presets(task_name: str) -> dict | None:
    """Return names by selector; None for a task whose cfg cannot be loaded."""
    try:
        groups = collect_presets(load_cfg_from_registry(task_name, "env_cfg_entry_point"))
    except Exception:
        return None
    names = sorted({name for fields in groups.values() for name in fields} - {"default"})
    return {PresetTarget.PHYSICS: names, PresetTarget.RENDERER: [], PresetTarget.DOMAIN: []}
