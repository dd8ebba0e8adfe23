"""Knobs under the names that earlier versions had, in files and in old runs.

Used in every process.
"""

from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.errors import ConfigError

BEFORE, NOW = "appo", "trainer_defaults"  # of `env`, until 0.2.0
NOTE = f"env.{BEFORE} is called env.{NOW} now; it is read as that"


def with_new_names(settings: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return nested settings with each knob under its present name; copies what it changes.

    Raises:
        ConfigError: A knob is there under both names.
    """
    if not has_old_names(settings):
        return dict(settings)
    env = dict(settings["env"])
    before = env.pop(BEFORE)
    if env.setdefault(NOW, before) is not before:
        raise ConfigError(f"env.{BEFORE}: is called env.{NOW} now, which is set too; join the two")
    return {**settings, "env": env}


def new_name(key: str) -> str | None:
    """Return what a dotted key is called now, where it had another name."""
    if not f"{key}.".startswith(f"env.{BEFORE}."):
        return None
    return key.replace(BEFORE, NOW, 1)


def has_old_names(settings: Mapping[Any, Any]) -> bool:
    """Return whether a knob is there under an earlier name."""
    env = settings.get("env")
    return isinstance(env, Mapping) and BEFORE in env
