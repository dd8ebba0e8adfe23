"""Whether mirrors written out in `ppo.symmetry.mirrors` are ones. Runs in the learner's process."""

from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.errors import ConfigError, shown

FORM = "{obs: {GROUP: [1, -2, ...]}, action: [-1, ...]} is expected"


def check_mirrors(mirrors: Mapping[str, Any]) -> None:
    """Refuse what is no signed permutation; whether the sizes fit is known with the env.

    Args:
        mirrors: Name -> `{obs: {group: [1, -2]}, action: [-1]}`.

    Raises:
        ConfigError: Says where, and what is expected.
    """
    for name, mirror in mirrors.items():
        key = f"ppo.symmetry.mirrors.{shown(name)}"
        whole = isinstance(mirror, Mapping) and set(mirror) == {"obs", "action"}
        if not whole or not isinstance(mirror["obs"], Mapping):
            raise ConfigError(f"{key}={shown(mirror)}: {FORM}")
        for group, entries in mirror["obs"].items():
            _check_entries(f"{key}.obs.{shown(group)}", entries)
        _check_entries(f"{key}.action", mirror["action"])


def _check_entries(key: str, entries: Any) -> None:
    numbers = isinstance(entries, list) and all(type(entry) is int for entry in entries)
    if not numbers or sorted(map(abs, entries)) != [*range(1, len(entries) + 1)]:
        raise ConfigError(
            f"{key}={shown(entries)}: each entry's number, from 1 to their count, is expected "
            "once, with a minus where its sign changes"
        )
