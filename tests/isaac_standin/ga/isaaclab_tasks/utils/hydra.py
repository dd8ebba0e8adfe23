"""Stand-in: presets from `overrides`."""

import sys

from isaaclab_tasks.utils.parse_cfg import load_cfg_from_registry
from isaaclab_tasks.utils.preset_groups import apply_tokens, collect_presets  # noqa: F401


def resolve_task_config(
    task_name: str,
    agent_cfg_entry_point: str | None,
    play_mode: bool = False,
    overrides: list | None = None,
) -> tuple:
    """Load both cfgs and apply what `overrides`, or else sys.argv, says."""
    env_cfg = load_cfg_from_registry(task_name, "env_cfg_entry_point")
    apply_tokens(env_cfg, sys.argv[1:] if overrides is None else overrides)
    if play_mode and hasattr(env_cfg, "play_mode"):
        env_cfg.play_mode()
    key = agent_cfg_entry_point
    return env_cfg, load_cfg_from_registry(task_name, key) if key else None
