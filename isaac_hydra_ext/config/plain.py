"""From what Hydra composed to plain data, of which only settings are accepted.

Runs in the learner's process, before any worker exists.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from isaac_hydra_ext.config.elsewhere import name_here
from isaac_hydra_ext.errors import ConfigError, first_line, shown

MAX_DEPTH = 20  # levels of nesting


def resolve(cfg: DictConfig | Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a composed configuration sets, as plain data with no interpolation left.

    A knob that is `???`, or not there, is not set. The values of environment variables stay out:
    the configuration is written to files, to checkpoints, and to pipes.

    Args:
        cfg: Not changed. It may be a part of an application's configuration, and lead there.
        below: The value of every knob that is not set: interpolations may lead there too.

    Raises:
        ConfigError: An interpolation that leads nowhere, or to an environment variable.
    """
    try:
        own = _copy(cfg)
        filled = list(_fill(own, below)) if isinstance(own, DictConfig) else []
        with _environment_refused():
            raw = OmegaConf.to_container(own, resolve=True)
    except (OmegaConfBaseException, RecursionError, ValueError) as e:
        key = getattr(e, "full_key", None) or "config"
        raise ConfigError(f"{key}: {first_line(e)}") from e
    if not isinstance(raw, dict):
        raise ConfigError(f"config={shown(repr(raw))}: a group of keys is expected here")
    for path in filled:
        _remove(raw, *path)
    return {str(key): value for key, value in raw.items() if key != "hydra"}


def _copy(cfg: DictConfig | Mapping[str, Any]) -> Any:
    """Copy a configuration with all that it is a part of."""
    if not isinstance(cfg, DictConfig):
        return OmegaConf.create(cfg)  # type: ignore[arg-type]
    root, key = copy.deepcopy(cfg._get_root()), cfg._get_full_key(None)
    return OmegaConf.select(root, key) if key else root  # type: ignore[arg-type]


def _fill(node: DictConfig, below: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Set what is not set to what lies below it; yields the path of each."""
    there = set(node)
    with flag_override(node, ["struct", "readonly"], False):
        for name, value in below.items():
            if name not in there or OmegaConf.is_missing(node, name):
                node[name] = value
                yield (name,)
            elif isinstance(value, Mapping) and isinstance(section := node[name], DictConfig):
                for path in _fill(section, value):
                    yield (name, *path)


def _remove(node: Any, name: str, *below: str) -> None:
    """Remove what lies at a path, and the sections that are empty without it."""
    if below:
        _remove(node[name], *below)
    if not below or not node[name]:
        del node[name]


@contextmanager
def _environment_refused() -> Iterator[None]:
    """Have `${oc.env:...}` refused; what the program has registered for it comes back."""
    resolvers = BaseContainer._resolvers  # there is no public way to ask for one
    before = resolvers.get("oc.env")
    with warnings.catch_warnings():  # OmegaConf 2.4 prefers a name that is another thing in 2.3
        warnings.simplefilter("ignore")
        OmegaConf.register_new_resolver("oc.env", _refuse_environment, replace=True)
    try:
        yield
    finally:
        del resolvers["oc.env"]
        if before is not None:
            resolvers["oc.env"] = before


def _refuse_environment(name: Any, default: Any = None) -> None:
    raise ValueError(
        f"oc.env:{name} is not accepted, as configurations are written to files; let the shell "
        "fill in what is no secret"
    )


def refuse_foreign(node: Any, path: str) -> None:
    """Refuse, anywhere in the tree, what is no plain setting: code, other types, huge numbers."""
    key = path.rstrip(".")
    if path.count(".") > MAX_DEPTH:
        raise ConfigError(f"{shown(key)}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "_target_":
                raise ConfigError(
                    f"{path}_target_={shown(repr(value))}: not accepted; configs of this package "
                    "do not instantiate objects (register an environment and name it in env.id)"
                )
            refuse_foreign(value, f"{path}{name}.")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            refuse_foreign(value, f"{path}{index}.")
    elif isinstance(node, int) and node.bit_length() > 63:
        raise ConfigError(f"{key}: an integer of {node.bit_length()} bits; 63 are the most")
    elif node is not None and not isinstance(node, (str, int, float)):
        raise ConfigError(f"{key}: {type(node).__name__} is not a type of setting")


def refuse_unknown(node: Any, schema: type, path: str) -> None:
    """Refuse keys that the schema does not have, naming the nearest one."""
    if not isinstance(node, Mapping):
        found = shown(repr(node))
        raise ConfigError(
            f"{path.rstrip('.') or 'config'}={found}: a group of keys is expected here"
        )
    known = {f.name: f for f in fields(schema)}
    for key, value in node.items():
        if key not in known:
            near = name_here(str(key), known, path)
            raise ConfigError(f"{shown(f'{path}{key}')}: unknown key{near}")
        section = known[str(key)].default_factory
        if isinstance(section, type) and is_dataclass(section):
            refuse_unknown(value, section, f"{path}{key}.")
