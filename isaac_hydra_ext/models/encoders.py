"""Encoders: from one obs group as the rollout holds it, a picture mostly, to a vector of features.

Used by the learner, by every collector and wherever a policy is played. A package registers its own
in the entry-point group `isaac_hydra_ext.encoders`, as `build(settings, spec) -> nn.Module`, and is
chosen by `policy.encoders.<group>.kind`.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from isaac_hydra_ext.config.encoders import (
    CNN,
    MLP,
    CnnConfig,
    kind_of,
    read_cnn,
    read_mlp,
    with_kernels,
)
from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.errors import ConfigError, did_you_mean
from isaac_hydra_ext.models import convolution
from isaac_hydra_ext.models.mlp_encoder import MlpEncoder
from isaac_hydra_ext.models.networks import ACTIVATIONS, check_contract
from isaac_hydra_ext.system import entry_points

EVERY_PICTURE = "*"  # of `policy.encoders`: what has no encoder of its own
MAX_FLAT = 1024  # numbers of a picture that an MLP reads without being told to


class CnnEncoder(nn.Module):
    """Convolutions over a picture [N, H, W, C], [N, C, H, W] or [N, H, W], or a stack of them.

    The first layer takes the picture in its own dtype and owns its scaling: uint8 is turned into
    floats there and nowhere else, and 1/255 is multiplied into the few weights instead of into
    every pixel. A stack [N, K, ...] is read as K times as many channels, the oldest first.
    """

    def __init__(self, config: CnnConfig, spec: TensorSpec, where: str) -> None:
        """Build it with fresh weights.

        Args:
            config: From `read_cnn`.
            spec: Of the group, as the rollout holds it.
            where: Begins the messages: `policy.encoders.camera`.

        Raises:
            ConfigError: The group is no picture, or too small for the kernels.
        """
        super().__init__()
        self._axes, size = _axes(spec.shape, config.layout, where)
        self._scale = config.scale or (1.0 / 255.0 if spec.dtype == "uint8" else 1.0)
        self._mode = config.padding if config.padding not in ("none", "zeros") else "constant"
        self._pool = config.pool
        config, sizes = _fitting(config, size, where)
        assert config.kernel is not None and config.stride is not None
        channels, height, width = size
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        self._pads: list[tuple[int, int, int, int]] = []
        for index, out in enumerate(config.channels):
            layer = nn.Conv2d(channels, out, config.kernel[index], config.stride[index],
                              dilation=config.dilation[index])  # fmt: skip
            self.convolutions.append(layer)
            pads, (height, width) = sizes[index]
            self._pads.append((pads[1], pads[1], pads[0], pads[0]))
            channels = out
            normed = config.norm == "layer"
            self.norms.append(nn.LayerNorm([out, height, width]) if normed else nn.Identity())
            if config.max_pool[index]:
                height, width = (height + 1) // 2, (width + 1) // 2
        self._max_pool = config.max_pool
        self._activation = ACTIVATIONS[config.activation]()
        pixels = {"flatten": height * width, "spatial_softmax": 2}
        self.num_features = channels * pixels.get(config.pool, 1)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the features [N, num_features] of pictures in the dtype of the rollout."""
        x = self._as_channels(picture)
        for index, (layer, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            assert isinstance(layer, nn.Conv2d)
            pads, weight, beyond = self._pads[index], layer.weight, (0, 0)
            if any(pads) and self._mode != "constant":
                x = functional.pad(x, pads, self._mode)
            elif any(pads):
                beyond = (pads[2], pads[0])
            if index == 0 and self._scale != 1.0:
                weight = weight * self._scale
            assert layer.bias is not None
            how = layer.stride[0], beyond, layer.dilation[0]
            x = self._activation(norm(convolution.conv2d(x, weight, layer.bias, *how)))
            if self._max_pool[index]:
                x = functional.max_pool2d(x, 3, 2, 1)
        if self._pool == "avg":
            return x.mean((2, 3))
        if self._pool == "max":
            return x.amax((2, 3))
        return spatial_softmax(x) if self._pool == "spatial_softmax" else x.flatten(1)

    def _as_channels(self, picture: torch.Tensor) -> torch.Tensor:
        """Return floats [N, C, H, W]; on a GPU with the channels of a pixel side by side."""
        x = picture.unsqueeze(3) if picture.dim() == 3 else picture
        x = x.permute(0, *(1 + axis for axis in self._axes))
        if x.dim() == 5:  # [N, H, W, K, C]
            x = x.flatten(3)
        x = x.movedim(3, 1)
        dtype = torch.float32
        if picture.is_cuda and torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
        if picture.is_cuda:
            return x.to(dtype, memory_format=torch.channels_last)
        return x.to(dtype)


def spatial_softmax(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Return where each channel is active: the mean of x and y in -1..1, [N, 2 C].

    Finn et al. 2016, "Deep spatial autoencoders", section III.C, at a temperature of 1.
    """
    _, _, height, width = x_NCHW.shape
    weight = x_NCHW.float().flatten(2).softmax(-1).unflatten(2, (height, width))
    xs = torch.linspace(-1.0, 1.0, width, device=x_NCHW.device)
    ys = torch.linspace(-1.0, 1.0, height, device=x_NCHW.device)
    return torch.cat([(weight.sum(2) * xs).sum(-1), (weight.sum(3) * ys).sum(-1)], dim=-1)


def _fitting(
    config: CnnConfig, size: tuple[int, int, int], where: str
) -> tuple[CnnConfig, list[tuple[tuple[int, int], tuple[int, int]]]]:
    """Return the config with kernels and strides that fit, and `_sizes` of it.

    Raises:
        ConfigError: None fit.
    """
    *others, last = with_kernels(config)
    for possible in others:
        with suppress(ConfigError):
            return possible, _sizes(possible, size, where)
    return last, _sizes(last, size, where)


def _sizes(
    config: CnnConfig, size: tuple[int, int, int], where: str
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return each layer's padding and what it gives, before a max pool, (height, width) each.

    Args:
        config: With kernels and strides.
        size: C, H and W of the picture.
        where: Begins the messages.

    Raises:
        ConfigError: A kernel is larger than what it reads.
    """
    assert config.kernel is not None and config.stride is not None
    (channels, height, width), found = size, []
    for index, (kernel, stride) in enumerate(zip(config.kernel, config.stride, strict=True)):
        reach, pads = config.dilation[index] * (kernel - 1) + 1, (0, 0)
        if config.padding != "none":
            pads = _padding(height, reach, stride), _padding(width, reach, stride)
        if reach > height + 2 * pads[0] or reach > width + 2 * pads[1]:
            wide = "" if reach == kernel else f" ({reach} pixels, as dilated)"
            raise ConfigError(
                f"{where}.kernel[{index}]={kernel}{wide}: larger than the {height} x {width} "
                f"pixels, of {channels} channels, that layer {index} reads; fewer layers, smaller "
                "kernels or strides, or padding=zeros"
            )
        if config.padding == "reflect" and (pads[0] >= height or pads[1] >= width):
            raise ConfigError(f"{where}.padding=reflect: wider than the picture; use zeros")
        height = (height + 2 * pads[0] - reach) // stride + 1
        width = (width + 2 * pads[1] - reach) // stride + 1
        found.append((pads, (height, width)))
        channels = config.channels[index]
        if config.max_pool[index]:
            height, width = (height + 1) // 2, (width + 1) // 2
    return found


def _padding(size: int, reach: int, stride: int) -> int:
    """Return how many pixels each edge needs for `size // stride` pixels of a layer's output."""
    return max(0, -(-(reach - stride - size % stride) // 2))


def _axes(
    shape: Sequence[int], layout: str, where: str
) -> tuple[tuple[int, ...], tuple[int, int, int]]:
    """Return the order of a picture's axes as [H, W, C] or [H, W, K, C], and C, H and W.

    Raises:
        ConfigError: It is no picture, or its layout must be said.
    """
    named, shown = tuple(shape), "x".join(map(str, shape)) or "one number"
    if len(named) == 2:
        return (0, 1, 2), (1, named[0], named[1])
    if len(named) not in (3, 4):
        raise ConfigError(
            f"{where}: the group is {shown}, not a picture; remove the encoder, an MLP reads it"
        )
    first, last = named[-3], named[-1]
    if layout == "auto" and first == last:
        raise ConfigError(f"{where}.layout: cannot be told from {shown}; say nhwc or nchw")
    nchw = layout == "nchw" or (layout == "auto" and first < last)
    if len(named) == 3:
        order = (1, 2, 0) if nchw else (0, 1, 2)
        return order, (named[order[2]], named[order[0]], named[order[1]])
    order = (2, 3, 0, 1) if nchw else (1, 2, 0, 3)
    return order, (named[0] * named[order[3]], named[order[0]], named[order[1]])


def make_encoder(group: str, settings: Mapping[str, Any] | None, spec: TensorSpec) -> nn.Module:
    """Build a function of [N, *spec.shape] in the group's dtype -> [N, F] float, fresh weights.

    A registered encoder is `build(settings, spec) -> nn.Module` with float32 parameters and nothing
    else that it remembers or draws, as registered networks are.

    Args:
        group: Its name.
        settings: `policy.encoders.<group>`.
        spec: Of the group, as the rollout holds it.

    Raises:
        ConfigError: The group is nothing that it encodes, or it breaks this contract.
    """
    where, kind = f"policy.encoders.{group}", kind_of(settings)
    if kind == CNN:
        return CnnEncoder(read_cnn(group, settings), spec, where)
    if kind == MLP:
        return MlpEncoder(read_mlp(group, settings), spec)
    build = entry_points.load(f"{where}.kind", kind, entry_points.ENCODERS)
    try:
        encoder = build(dict(settings or {}), spec)
        if not isinstance(encoder, nn.Module):
            raise ConfigError(f"{where}: a {type(encoder).__name__}, not an nn.Module")
        sample = _sample(spec)
        with torch.no_grad():
            first, second = encoder(sample), encoder(sample)
    except (TypeError, ValueError, RuntimeError, KeyError) as e:
        text = " ".join(str(e).split())
        raise ConfigError(f"{where} cannot be built: {type(e).__name__}: {text}") from e
    if first.dim() != 2 or first.shape[0] != 3:
        raise ConfigError(f"{where} gives {tuple(first.shape)} for 3 pictures, not (3, features)")
    check_contract(encoder, first, second, where)
    return encoder


@torch.no_grad()
def num_features(encoder: nn.Module, spec: TensorSpec) -> int:
    """Return F, as the encoder gives it."""
    if isinstance(encoder, CnnEncoder):
        return encoder.num_features
    return encoder(_sample(spec)).shape[1]


def _sample(spec: TensorSpec) -> torch.Tensor:
    return torch.zeros((3, *spec.shape), dtype=getattr(torch, spec.dtype))


def with_every_picture(config: PolicyConfig, spec: EnvSpec, read: Sequence[str]) -> PolicyConfig:
    """Return the policy with an encoder for each picture that is read, where `*` gives them one.

    Args:
        config: The policy's.
        spec: Of the env; a picture has three dimensions or more.
        read: The groups that actor or critic reads.
    """
    given = dict(config.encoders)
    if EVERY_PICTURE not in given:
        return config
    usual = given.pop(EVERY_PICTURE)
    pictures = {group: usual for group in read if len(spec.obs[group].shape) >= 3}
    return replace(config, encoders={**pictures, **given})


def check_groups(config: PolicyConfig, spec: EnvSpec, read: Sequence[str]) -> None:
    """Check that every encoder has its group, and that every large picture that is read has one.

    Args:
        config: The policy's.
        spec: Of the env.
        read: The groups that actor or critic reads.

    Raises:
        ConfigError: Names the group, and how many numbers it is.
    """
    for group in config.encoders:
        if group not in spec.obs:
            hint = did_you_mean(group, spec.obs) or f"; there are {', '.join(spec.obs)}"
            raise ConfigError(f"policy.encoders.{group}: the env has no group {group!r}{hint}")
    for group in read:
        shape = spec.obs[group].shape
        size = math.prod(shape)
        by_mlp = config.network == "mlp"
        if group in config.encoders:
            by_mlp = kind_of(config.encoders[group]) == MLP
        if by_mlp and len(shape) > 1 and size > MAX_FLAT and not config.flatten_images:
            raise ConfigError(
                f"the obs group {group} is a picture, {'x'.join(map(str, shape))} = {size:,} "
                f"numbers: give it an encoder, +policy.encoders={{{group}: {{kind: cnn}}}}, or set "
                "policy.flatten_images=true"
            )
