"""The convolutional encoder. Used wherever a policy that sees pictures acts or learns."""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import nn
from torch.nn import functional

from isaac_hydra_ext.config.encoders import CnnConfig, with_kernels
from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models import convolution
from isaac_hydra_ext.models.networks import ACTIVATIONS


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

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the features [N, F] of pictures in the dtype of the rollout."""
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
