"""Who decides a knob: layers of settings over the schema's defaults.

Runs in the learner's process, before any worker exists. A layer is plain data, nested as the
schema is, with the knobs that somebody has set and no others; the schema is a dataclass of
sections, whose defaults lie below all layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from isaac_hydra_ext.config.nested import nested
from isaac_hydra_ext.config.typed import is_typed
from isaac_hydra_ext.errors import LIST_EXPECTED, ConfigError, first_line, shown

Schema = TypeVar("Schema")


def merge_layers(schema: type[Schema], layers: Sequence[Mapping[str, Any]]) -> Schema:
    """Merge layers over the schema's defaults.

    A list replaces the one below it, a mapping is merged into it.

    Args:
        schema: The dataclass to fill; it is made without arguments.
        layers: Lowest first.

    Raises:
        ConfigError: A value that is missing, or of another type than its knob.
    """
    merged = OmegaConf.structured(schema)
    for layer in layers:
        # One by one, as not every error names its key.
        for key, value, kind in _leaves(_with_one_minibatch_knob(layer), schema, ""):
            if wanted := _wanted(kind, value):
                raise ConfigError(f"{key}={'null' if value is None else shown(value)}: {wanted}")
            try:
                merged.merge_with(nested(key, value))
            except (OmegaConfBaseException, ValueError, TypeError) as e:
                key = getattr(e, "full_key", None) or key
                raise ConfigError(f"{key}: {first_line(e)}") from e
    try:
        config = OmegaConf.to_object(merged)
    except MissingMandatoryValue as e:
        raise ConfigError(f"{e.full_key}=???: the value is missing; give one") from e
    assert isinstance(config, schema)
    return config


def _leaves(layer: Mapping[str, Any], schema: type, path: str) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, value, type) of every knob that a layer sets, however deep its section lies."""
    known = {f.name: f for f in fields(schema)}  # type: ignore[arg-type]
    for name, value in layer.items():
        section = known[name].default_factory
        if isinstance(section, type) and is_dataclass(section):
            yield from _leaves(value, section, f"{path}{name}.")
        else:
            yield f"{path}{name}", value, str(known[name].type)


def _wanted(kind: str, value: Any) -> str:
    """Return what a knob of this type wants, where it is given another kind of thing.

    A list, a mapping, one value, null; or true and false, which OmegaConf makes of any number.
    """
    if value == "???" or kind.split(".")[-1] == "Any":
        return ""
    if value is None:
        return "" if "None" in kind else "not possible here; leave it out"
    if kind.startswith("dict["):
        fits, wanted = isinstance(value, Mapping), "a mapping is expected here: {NAME: VALUE}"
    elif kind.startswith("list["):
        fits = isinstance(value, (list, tuple))
        wanted = LIST_EXPECTED
    else:
        fits = not isinstance(value, (list, tuple, Mapping))
        wanted = "one value is expected here"
    if fits and "bool" in kind:
        given = value if isinstance(value, (list, tuple)) else [value]
        fits = all(x in (0, 1) or isinstance(x, str) for x in given)
        wanted = "true or false is expected here"
    return "" if fits else wanted


def with_one_size(user: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Have what was typed overrule a file's other way to say the minibatch's size.

    Raises:
        ConfigError: Both were typed.
    """
    sizes = ("batch_size", "num_mini_batches")
    ppo = user.get("ppo") or {}
    if any(ppo.get(name) is None for name in sizes):
        return user
    kept = [name for name in sizes if is_typed(f"ppo.{name}", typed)]
    if len(kept) == 2:
        raise ConfigError("ppo.batch_size and ppo.num_mini_batches: give one of the two, not both")
    if not kept:  # a run's own params/agent.yaml has both: the one follows from the other
        return user
    return {**user, "ppo": {k: v for k, v in ppo.items() if k not in sizes or k in kept}}


def _with_one_minibatch_knob(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Have a layer's `batch_size` overrule the `num_mini_batches` of the layers below it."""
    ppo = layer.get("ppo") or {}
    if "batch_size" not in ppo or "num_mini_batches" in ppo:
        return dict(layer)
    return {**layer, "ppo": {**ppo, "num_mini_batches": None}}
