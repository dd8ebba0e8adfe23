"""Convolutions of few channels on a GPU; skipped where there is none."""

import pytest
import torch
from torch.nn import functional

from isaac_hydra_ext.models import convolution
from isaac_hydra_ext.system import compiler

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or bool(compiler.why_not("cuda")),
    reason="needs a CUDA device, Triton and a C compiler",
)
# N, H, W, C, filters, kernel, stride, pad.
SHAPES = [
    (5, 14, 13, 6, 8, 5, 2, 0),
    (3, 11, 12, 8, 16, 3, 2, 0),
    (3, 10, 9, 16, 16, 3, 2, 1),
    (2, 36, 32, 4, 32, 8, 4, 0),
    (4, 9, 9, 3, 5, 3, 1, 1),
    (2, 9, 10, 1, 4, 4, 3, 2),
]


def tensors(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    N, H, W, C, filters, kernel, _, _ = shape
    weight = torch.randn(filters, C, kernel, kernel, device="cuda") / (C * kernel**2) ** 0.5
    return torch.randn(N, C, H, W, device="cuda"), weight, torch.randn(filters, device="cuda")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernels_are_the_convolution_and_its_gradients(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from isaac_hydra_ext.models import convolution_kernels as kernels

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x, weight, bias = tensors(shape)
    _, H, W, _, _, kernel, stride, pad = shape
    x.requires_grad_()
    weight.requires_grad_()
    expected = functional.conv2d(x, weight, bias, stride, pad)
    gradient = torch.randn_like(expected)
    of_x, of_weight = torch.autograd.grad(expected, [x, weight], gradient)
    x_NHWC, gradient = (t.detach().permute(0, 2, 3, 1).contiguous() for t in (x, gradient))
    weight = weight.detach()
    found = [
        kernels.forward(x_NHWC, weight, bias, stride, pad, "ieee").permute(0, 3, 1, 2),
        kernels.input_gradient(gradient, weight, (H, W), stride, pad, "ieee").permute(0, 3, 1, 2),
        kernels.weight_gradient(x_NHWC, gradient, kernel, stride, pad, "ieee"),
    ]
    for ours, theirs in zip(found, [expected.detach(), of_x, of_weight], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    again = kernels.weight_gradient(x_NHWC, gradient, kernel, stride, pad, "ieee")
    assert torch.equal(again, found[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_convolution_is_differentiated_as_pytorchs_own(
    dtype: torch.dtype, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = (t.requires_grad_() for t in tensors(SHAPES[1]))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    plain = functional.conv2d(x, weight, bias, 2)
    expected = [plain, *torch.autograd.grad(plain.square().sum(), [x, weight, bias])]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(functional, "conv2d", None)  # nobody asks cuDNN

    def ours(x: torch.Tensor) -> torch.Tensor:
        return convolution.conv2d(x, weight, bias, 2, (0, 0), 1)

    function = torch.compile(ours, fullgraph=True) if compiled else ours
    with torch.autocast("cuda", dtype, enabled=dtype == torch.bfloat16):
        y = function(x)
    assert y.dtype == dtype
    found = [y, *torch.autograd.grad(y.float().square().sum(), [x, weight, bias])]
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).norm() < (2e-3 if dtype == torch.float32 else 2e-2) * theirs.norm()
