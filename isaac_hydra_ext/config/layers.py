"""Who decides a knob: the user before the task, the task before the defaults.

Runs in the learner's process, before any worker exists. Layers are plain nested mappings of
sections to knobs; the schema is a dataclass of such sections, whose defaults are the lowest layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from isaac_hydra_ext.config.checks import is_typed
from isaac_hydra_ext.errors import ConfigError, first_line

Schema = TypeVar("Schema")


def merge_layers(
    schema: type[Schema],
    recommended: Sequence[Mapping[str, Any]],
    user: Mapping[str, Any],
    typed: Sequence[str],
) -> Schema:
    """Merge what was recommended and what the user set over the schema's defaults.

    Args:
        schema: The dataclass to fill; it is made without arguments.
        recommended: Layers above the defaults, lowest first.
        user: The whole composed configuration. Of it counts what differs from the defaults or
            was typed.
        typed: The user's override tokens.

    Raises:
        ConfigError: A value that is missing or of another type than its knob, or two typed sizes
            of a minibatch.
    """
    set_by_user = _with_one_of_two_sizes(_keep_set_by_user(user, typed, schema()), typed)
    layers = [_with_one_minibatch_knob(layer) for layer in [*recommended, set_by_user]]
    return _merge_typed(layers, schema)


def _keep_set_by_user(
    user: Mapping[str, Any], typed: Sequence[str], defaults: object
) -> dict[str, Any]:
    """Drop the leaves that nobody set: they equal the default and were not typed.

    A group choice (`ppo=vtrace`) sets what its file has other than the default; the rest of the
    file is there to be complete, and leaves what the task recommends alone.
    """
    kept: dict[str, Any] = {}
    for section, declared in user.items():
        default = getattr(defaults, section)
        if not is_dataclass(default):
            kept[section] = declared
            continue
        kept[section] = {
            key: value
            for key, value in (declared or {}).items()
            if value != getattr(default, key) or is_typed(f"{section}.{key}", typed)
        }
    return kept


def _with_one_of_two_sizes(user: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
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


def _merge_typed(layers: Sequence[Mapping[str, Any]], schema: type[Schema]) -> Schema:
    """Merge plain layers into the typed schema, lowest first; report types as `ConfigError`."""
    merged = OmegaConf.structured(schema)
    for layer in layers:
        for section, value in layer.items():
            leaves = value.items() if isinstance(value, Mapping) else [(None, value)]
            for name, leaf in leaves:  # one by one, as not every error names its key
                nested = {section: {name: leaf} if name else leaf}
                try:
                    merged = OmegaConf.merge(merged, nested)
                except (OmegaConfBaseException, ValueError, TypeError) as e:
                    key = f"{section}.{name}" if name else section
                    key = getattr(e, "full_key", None) or key
                    raise ConfigError(f"{key}: {first_line(e)}") from e
    try:
        config = OmegaConf.to_object(merged)
    except MissingMandatoryValue as e:
        raise ConfigError(f"{e.full_key}=???: the value is missing; give one") from e
    assert isinstance(config, schema)
    return config
