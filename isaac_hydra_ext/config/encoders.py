"""What `policy.encoders` says of each image group. Used in every process."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from isaac_hydra_ext.config.bounds import check_bounds
from isaac_hydra_ext.config.knob import knob
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError, shown

Schema = TypeVar("Schema")
CNN, MLP = "cnn", "mlp"  # the kinds that this package brings
# Kernels and strides that nobody has given, a further layer's as the last: of Mnih et al. 2015, for
# pictures of 84 x 84, and for pictures that are too small for these.
USUAL = {"kernel": (8, 4, 3), "stride": (4, 2, 1)}
SMALL = {"kernel": (3,), "stride": (2,)}
PADDINGS = ("none", "zeros", "reflect", "replicate", "circular")
ACTIVATIONS = ("elu", "relu", "tanh", "selu", "silu", "gelu")


@dataclass
class CnnConfig:
    """A convolutional encoder. Names are rsl_rl's `cnn_cfg`, shorter.

    A list has an entry a layer, or one for all of them.
    """

    kind: str = knob(CNN, "cnn, mlp, module:function, or one that a package registers")
    channels: list[int] = knob([16, 32, 32], "[channels] that each layer gives", ge=1, le=4096)
    kernel: list[int] | None = knob(None, "[pixels]; null: as `with_kernels` says", ge=1, le=256)
    stride: list[int] | None = knob(None, "[pixels]; null: likewise", ge=1, le=256)
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


@dataclass
class MlpConfig:
    """An MLP before the MLP, over a vector."""

    kind: str = knob(MLP, "mlp")
    hidden_dims: list[int] = knob([256], "[units] of its hidden layers", ge=1, le=2**16)
    features: int = knob(64, "[numbers] that it gives", ge=1, le=2**16)
    activation: str = knob("elu", "of the hidden layers", choices=ACTIVATIONS)
    last_activation: str | None = knob("elu", "of the features; null: none", choices=ACTIVATIONS)


def kind_of(settings: Any) -> str:
    """Return the kind of encoder that a group's settings name."""
    return str((settings or {}).get("kind", CNN))


def _read(group: str, settings: Mapping[str, Any] | None, schema: type[Schema]) -> Schema:
    """Return a group's settings, each of its type and within its bounds."""
    # Here, as they take Hydra's parser: each worker imports this module.
    from isaac_hydra_ext.config.layers import merge_layers
    from isaac_hydra_ext.config.plain import refuse_unknown

    path = f"policy.encoders.{group}"
    refuse_unknown(settings or {}, schema, f"{path}.")
    try:
        config = merge_layers(schema, [settings or {}])
        check_bounds(config)
    except ConfigError as e:
        raise ConfigError(f"{path}.{e}") from e
    return config


def read_mlp(group: str, settings: Mapping[str, Any] | None) -> MlpConfig:
    """Return the settings of a group whose kind is `mlp`.

    Raises:
        ConfigError: A key or a value that cannot be; names it.
    """
    return _read(group, settings, MlpConfig)


def read_cnn(group: str, settings: Mapping[str, Any] | None) -> CnnConfig:
    """Return a group's settings with every list that is given as long as there are layers.

    Raises:
        ConfigError: A key, a value or a length that cannot be; names it.
    """
    path = f"policy.encoders.{group}"
    given = {
        key: [value] if key in LISTS and not isinstance(value, (list, tuple, type(None))) else value
        for key, value in (settings or {}).items()
    }
    config = _read(group, given, CnnConfig)
    layers = len(config.channels)
    if not layers:
        raise ConfigError(f"{path}.channels=[]: one layer at least")
    lists: dict[str, Any] = {}
    for name in LISTS:
        value = getattr(config, name)
        if value is None:
            continue
        if len(value) not in (1, layers):
            raise ConfigError(
                f"{path}.{name}={value}: {len(value)} entries for {layers} layers "
                f"(channels={config.channels}); give {layers}, or one for all"
            )
        lists[name] = value if len(value) == layers else value * layers
    return replace(config, **lists)


def with_kernels(config: CnnConfig) -> list[CnnConfig]:
    """Return what is meant where kernel or stride is null; of two, the first that fits is it.

    Null are 8, 4, 3 and 4, 2, 1, further layers as the last; where both are null and the picture is
    too small for that, 3 and 2 in each layer.
    """
    free = [name for name in USUAL if getattr(config, name) is None]
    layers = len(config.channels)

    def filled(entries: tuple[int, ...]) -> list[int]:
        return [*entries, *entries[-1:] * layers][:layers]

    return [
        replace(config, **{name: filled(default[name]) for name in free})
        for default in ((USUAL, SMALL) if len(free) == len(USUAL) else (USUAL,))
    ]


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
        if kind_of(settings) == CNN:
            read_cnn(group, settings)
        elif kind_of(settings) == MLP:
            read_mlp(group, settings)


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
