"""One convolution: PyTorch's, or on a GPU and of few channels, kernels of ours.

Used by the learner, by every collector and wherever a policy is played. cuDNN is made for many
channels: for 6 to 16 of them it spends most of its time on zeros that it adds.
"""

from typing import Any

import torch
from torch.nn import functional

from isaac_hydra_ext.system import compiler

MAX_CHANNELS = 16  # of the pictures; with 32 both are as fast


def conv2d(
    x_NCHW: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    stride: int,
    pad: tuple[int, int],
    dilation: int,
) -> torch.Tensor:
    """Return the convolution of pictures, as `torch.nn.functional.conv2d` does.

    The kernels multiply in TF32 or bfloat16: where cuDNN may not, neither do they.

    Args:
        x_NCHW: Pictures.
        weight: [F, C, kernel, kernel].
        bias: [F].
        stride: Of the windows.
        pad: Zeros above and below, left and right.
        dilation: Between a window's pixels.
    """
    low = torch.is_autocast_enabled("cuda")
    # What is exported is on a CPU: traced, it must not be asked for the size of its weights.
    few = x_NCHW.is_cuda and weight.shape[1] <= MAX_CHANNELS and dilation == 1
    may_round = low or torch.backends.cudnn.allow_tf32
    if not (few and pad[0] == pad[1] and may_round and _can_be_built()):
        return functional.conv2d(x_NCHW, weight, bias, stride, pad, dilation)
    x_NHWC = x_NCHW.permute(0, 2, 3, 1)
    if low:  # an autograd function is not cast by itself
        x_NHWC = x_NHWC.to(torch.get_autocast_dtype("cuda"))
    y_NHWC = _Convolution.apply(x_NHWC.contiguous(), weight, bias, stride, pad[0])
    assert isinstance(y_NHWC, torch.Tensor)
    return y_NHWC.permute(0, 3, 1, 2)


def _can_be_built() -> bool:
    """Return whether there are kernels: where torch.compile traces this there are."""
    return torch.compiler.is_compiling() or not compiler.why_not("cuda")


class _Convolution(torch.autograd.Function):
    """In the dtype of the pictures; gradients of weights are summed in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NHWC: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        pad: int,
    ) -> torch.Tensor:
        from isaac_hydra_ext.models import convolution_kernels

        weight = weight.to(x_NHWC.dtype)
        ctx.save_for_backward(x_NHWC, weight)
        ctx.how = stride, pad, "tf32"
        return convolution_kernels.forward(x_NHWC, weight, bias, *ctx.how)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        from isaac_hydra_ext.models import convolution_kernels

        x_NHWC, weight = ctx.saved_tensors
        gradient, of_x = gradient.contiguous(), None
        if ctx.needs_input_grad[0]:
            size = x_NHWC.shape[1], x_NHWC.shape[2]
            of_x = convolution_kernels.input_gradient(gradient, weight, size, *ctx.how)
        of_weight = convolution_kernels.weight_gradient(x_NHWC, gradient, weight.shape[2], *ctx.how)
        return of_x, of_weight, gradient.sum((0, 1, 2), dtype=torch.float32), None, None
