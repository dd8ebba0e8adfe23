"""Dotted keys and the nested mappings they lead into. Used in every process."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return the mapping that holds a value at a dotted key: `a.b` -> `{a: {b: value}}`."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def value_at(nested: Any, key: str, default: Any) -> Any:
    """Return what nested mappings hold at a dotted key, however deep, or the default."""
    for name in key.split("."):
        if not isinstance(nested, Mapping) or name not in nested:
            return default
        nested = nested[name]
    return nested


def walk(config: Any, path: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield (key, value, metadata) for every leaf of nested dataclasses."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from walk(value, f"{path}{f.name}.")
        else:
            yield f"{path}{f.name}", value, f.metadata
