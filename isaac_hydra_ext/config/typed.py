"""What the user typed, as Hydra's own parser reads it. Runs in the learner's process."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import ListConfig, OmegaConf

from isaac_hydra_ext.config.nested import value_at
from isaac_hydra_ext.errors import ConfigError, shown


def parse(token: str) -> Override:
    """Read one override: `ppo.lr=1e-4`, `+env.kwargs.g=5`, `rollout=sync`.

    Raises:
        ConfigError: Hydra cannot read it.
    """
    try:
        return OverridesParser.create().parse_override(token)
    except HydraException as e:
        raise ConfigError(
            f"{shown(token)}: KEY=VALUE is expected here, as Hydra reads it (texts quoted)"
        ) from e


def as_tokens(typed: Sequence[str] | ListConfig, package: str = "") -> list[str]:
    """Return override tokens as plain texts, as if the package's groups were at the top level.

    Args:
        typed: As Hydra has them. A ListConfig is not resolved: an override that names an
            environment variable must not become its value.
        package: Where our groups lie in the application's configuration, e.g. `appo`.
    """
    if isinstance(typed, ListConfig):
        plain = OmegaConf.to_container(typed, resolve=False)
        assert isinstance(plain, list)
        typed = [str(token) for token in plain]
    if package:
        typed = [token.lstrip("+").removeprefix(f"{package}.") for token in typed]
    return list(typed)


def is_typed(key: str, typed: Sequence[str]) -> bool:
    """Return whether the user typed this knob, or a part of it.

    Alone or in a mapping: `ppo.lr=1e-4`, `ppo={lr:1e-4}`; and `+env.kwargs.g=5` types
    `env.kwargs`. A group's choice (`ppo=vtrace`) types none of its knobs.

    Raises:
        ConfigError: A token that Hydra cannot read.
    """
    below = f"{key}."
    return any(k == key or k.startswith(below) for token in typed for k in typed_keys(token))


def typed_value(key: str, typed: Sequence[str]) -> Any:
    """Return what the last override that sets a key says, alone or in a mapping; None without one.

    Raises:
        ConfigError: A token that Hydra cannot read.
    """
    found = None
    for token in typed:
        override = parse(token)
        where = override.key_or_group.replace("/", ".")
        if override.is_delete() or override.is_sweep_override():
            continue
        if where == key:
            found = override.value()
        elif key.startswith(f"{where}."):
            found = value_at(override.value(), key.removeprefix(f"{where}."), found)
    return found


@lru_cache(maxsize=1024)
def typed_keys(token: str) -> tuple[str, ...]:
    """Return the keys that an override sets: `ppo={lr: 1e-4, clip: 0.1}` sets two.

    Raises:
        ConfigError: Hydra cannot read it.
    """
    override = parse(token)
    if override.is_delete():
        return ()
    value = None if override.is_sweep_override() else override.value()
    return tuple(_leaf_keys(override.key_or_group.replace("/", "."), value))


def _leaf_keys(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for name, below in value.items():
            yield from _leaf_keys(f"{key}.{name}", below)
    else:
        yield key
