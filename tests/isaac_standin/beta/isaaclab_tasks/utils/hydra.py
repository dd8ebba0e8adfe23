"""Stand-in: presets from sys.argv."""

import sys

from isaaclab_tasks.utils.parse_cfg import load_cfg_from_registry
from isaaclab_tasks.utils.preset_groups import apply_tokens, collect_presets  # noqa: F401


def resolve_task_config(task_name: str, agent_cfg_entry_point: str) -> tuple:
    """Load both cfgs and apply what sys.argv says."""
    env_cfg = load_cfg_from_registry(task_name, "env_cfg_entry_point")
    apply_tokens(env_cfg, sys.argv[1:])
    key = agent_cfg_entry_point
    return env_cfg, load_cfg_from_registry(task_name, key) if key else None
