"""What `policy.encoders` says of each image group. Used in every process."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from isaac_hydra_ext.config.knob import knob
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError, did_you_mean, shown

BUILT_IN_KIND = "cnn"
PADDINGS = ("none", "zeros", "reflect", "replicate", "circular")
ACTIVATIONS = ("elu", "relu", "tanh", "selu", "silu", "gelu")


@dataclass
class CnnConfig:
    """A convolutional encoder. Names are rsl_rl's `cnn_cfg`, shorter.

    A list has an entry a layer, or one for all of them.
    """

    kind: str = knob(BUILT_IN_KIND, "cnn, or one that a package registers")
    channels: list[int] = knob([16, 32, 32], "[channels] that each layer gives", ge=1, le=4096)
    kernel: list[int] = knob([8, 4, 3], "[pixels]", ge=1, le=256)
    stride: list[int] = knob([4, 2, 1], "[pixels]", ge=1, le=256)
    dilation: list[int] = knob([1], "[pixels] between those that a kernel reads", ge=1, le=256)
    padding: str = knob(
        "none", "at the edges, so that a picture shrinks by the stride alone", choices=PADDINGS
    )
    norm: str = knob("none", "after each convolution", choices=("none", "layer"))
    activation: str = knob("elu", "after each convolution", choices=ACTIVATIONS)
    max_pool: list[bool] = knob([False], "3 x 3 of stride 2, after each layer")
    pool: str = knob(
        "flatten",
        "of the last layer's pictures: all numbers, each channel's mean or largest, or where each "
        "channel is active (spatial_softmax)",
        choices=("flatten", "avg", "max", "spatial_softmax"),
    )
    layout: str = knob(
        "auto", "the axis of channels; auto: the shorter end", choices=("auto", "nhwc", "nchw")
    )
    scale: float | None = knob(
        None, "[-] the picture is multiplied by it; null: uint8 to 0..1, others as they come", gt=0
    )


LISTS = tuple(f.name for f in fields(CnnConfig) if str(f.type).startswith("list"))


def kind_of(settings: Any) -> str:
    """Return the kind of encoder that a group's settings name."""
    return str((settings or {}).get("kind", BUILT_IN_KIND))


def read_cnn(group: str, settings: Mapping[str, Any] | None) -> CnnConfig:
    """Return a group's settings with every list as long as there are layers.

    Raises:
        ConfigError: A key, a value or a length that cannot be; names it.
    """
    # Here, as they take Hydra's parser: each worker imports this module.
    from isaac_hydra_ext.config.layers import merge_layers
    from isaac_hydra_ext.config.plain import refuse_unknown

    path = f"policy.encoders.{group}"
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f"{path}={shown(settings)}: {{kind: cnn, ...}} is expected here")
    given = {
        key: [value] if key in LISTS and not isinstance(value, (list, tuple)) else value
        for key, value in (settings or {}).items()
    }
    refuse_unknown(given, CnnConfig, f"{path}.")
    try:
        config = merge_layers(CnnConfig, [given])
    except ConfigError as e:
        raise ConfigError(f"policy.encoders.{group}.{e}") from e
    _check(path, config)
    layers = len(config.channels)
    if not layers:
        raise ConfigError(f"{path}.channels=[]: one layer at least")
    lists: dict[str, Any] = {}
    for name in LISTS:
        value = getattr(config, name)
        if len(value) not in (1, layers):
            raise ConfigError(
                f"{path}.{name}={value}: {len(value)} entries for {layers} layers "
                f"(channels={config.channels}); give {layers}, or one for all"
            )
        lists[name] = value if len(value) == layers else value * layers
    return replace(config, **lists)


def _check(path: str, config: CnnConfig) -> None:
    """Check bounds and choices."""
    for f in fields(CnnConfig):
        value, limits = getattr(config, f.name), f.metadata
        if limits["choices"] and value not in limits["choices"]:
            allowed = ", ".join(limits["choices"])
            hint = did_you_mean(str(value), limits["choices"])
            raise ConfigError(f"{path}.{f.name}={shown(value)}: must be one of {allowed}{hint}")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            low, high = limits["ge"], limits["le"]
            if not (low is None or number >= low) or (high is not None and number > high):
                raise ConfigError(f"{path}.{f.name}={number}: must be {low:g} to {high:,g}")
            if limits["gt"] is not None and not number > limits["gt"]:
                raise ConfigError(f"{path}.{f.name}={number}: must be greater than 0")


def check_encoders(encoders: Mapping[str, Any]) -> None:
    """Check all that can be without the env's spaces.

    Raises:
        ConfigError: The first finding.
    """
    for group, settings in encoders.items():
        if settings is not None and not isinstance(settings, Mapping):
            raise ConfigError(
                f"policy.encoders.{group}={shown(settings)}: {{kind: cnn, ...}} is expected here"
            )
        if kind_of(settings) == BUILT_IN_KIND:
            read_cnn(group, settings)


def check_frame_stack(config: RunConfig) -> None:
    """Check that there are pictures to stack, and nobody who could not read stacks.

    Raises:
        ConfigError: The first finding.
    """
    where = f"rollout.frame_stack={config.rollout.frame_stack}"
    if config.rollout.frame_stack == 1:
        return
    if not config.policy.encoders:
        raise ConfigError(f"{where}: of pictures that policy.encoders names, and it names none")
    if config.policy.recurrent.kind:
        raise ConfigError(f"{where}: policy.recurrent remembers what it sees; use one of the two")
    for key, found, only in (
        ("policy.kind", config.policy.kind, "actor_critic"),
        ("algorithm.kind", config.algorithm.kind, "ppo"),
    ):
        if found != only:
            raise ConfigError(f"{where}: with {key}={only} alone, not {found}")
