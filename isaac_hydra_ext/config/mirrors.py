"""Whether what `ppo.symmetry` says is whole. Runs in the learner's process, before any worker."""

from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.config.ppo_schema import SymmetryConfig
from isaac_hydra_ext.errors import ConfigError, shown
from isaac_hydra_ext.system.entry_points import names_object

FUNCTION = "ppo.symmetry.data_augmentation_func"
FORM = "{obs: {GROUP: [1, -2, ...]}, action: [-1, ...]} is expected"


def check_symmetry(symmetry: SymmetryConfig) -> None:
    """Refuse mirrors that are no signed permutations; whether sizes fit is known with the env.

    Raises:
        ConfigError: Says where, and what is expected; or that there is nothing to mirror by.
    """
    name = symmetry.data_augmentation_func
    if name is not None:
        module, _, function = name.replace(":", ".").rpartition(".")
        if not names_object(f"{module}:{function}"):
            raise ConfigError(f"{FUNCTION}={shown(name)}: package.module:function is expected")
    for use in ("use_data_augmentation", "use_mirror_loss"):
        if getattr(symmetry, use) and not (symmetry.mirrors or symmetry.data_augmentation_func):
            raise ConfigError(
                f"ppo.symmetry.{use}=true: nothing says what is symmetric; set "
                f"ppo.symmetry.mirrors or {FUNCTION}"
            )
    for name, mirror in symmetry.mirrors.items():
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
