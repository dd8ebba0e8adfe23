"""Which trainer an agent cfg is of, and which of a task's cfgs is read.

Runs in worker 0 during `describe`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.rl_games import is_rl_games, settings_from_rl_games
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import is_rsl_rl, settings_from_rsl_rl
from isaac_hydra_ext.envs.agent_cfgs.skrl import is_skrl, settings_from_skrl
from isaac_hydra_ext.errors import ConfigError, did_you_mean

TRAINERS = ("rsl_rl", "skrl", "rl_games")  # the first that a task has a cfg of is read
ENTRY = "_cfg_entry_point"


def agent_key(asked: str | None, entries: Collection[str], task: str) -> str:
    """Return the registry key of the agent cfg to start from; empty for none.

    Args:
        asked: `env.agent`: null, none, a trainer's name, or a key.
        entries: The task's keys.
        task: Its id, for messages.

    Raises:
        ConfigError: The task has no such cfg.
    """
    if asked == "none":
        return ""
    keys = [f"{trainer}{ENTRY}" for trainer in TRAINERS]
    if asked is None:
        return next((key for key in keys if key in entries), "")
    key = f"{asked}{ENTRY}" if asked in TRAINERS else asked
    if key in entries and key.startswith(TRAINERS):
        return key
    known = [key for key in entries if key.startswith(TRAINERS)]
    raise ConfigError(
        f"env.agent={asked}: no such entry{did_you_mean(asked, [*TRAINERS, *known])}; "
        f"{agents_of(entries, task)}"
    )


def agents_of(entries: Collection[str], task: str) -> str:
    """Say what `env.agent` can be."""
    known = ", ".join(key for key in entries if key.startswith(TRAINERS))
    return f"{task} has {known or 'no agent cfg'}, and none starts from this package's defaults"


def trainer_of(cfg: Mapping[str, Any]) -> str | None:
    """Return the trainer whose cfg plain data is; None for another's."""
    known = {"rsl_rl": is_rsl_rl, "skrl": is_skrl, "rl_games": is_rl_games}
    return next((name for name, matches in known.items() if matches(cfg)), None)


def settings_from(
    cfg: Mapping[str, Any], groups: Sequence[str] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Map any trainer's cfg to nested settings of ours; see `settings_from_rsl_rl`."""
    trainer = trainer_of(cfg)
    if trainer == "rl_games":
        return settings_from_rl_games(cfg)
    return settings_from_skrl(cfg) if trainer == "skrl" else settings_from_rsl_rl(cfg, groups)
