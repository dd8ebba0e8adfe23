"""A chain of layers run forwards and backwards without autograd. Runs in the learner's process."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from isaac_hydra_ext.models.policy import Chain

aten = torch.ops.aten
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, eq. 14
# (layer, gradient of its output, its input, its output) -> gradient of its input
Slope = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
SLOPES: dict[type[nn.Module], Slope] = {
    nn.Tanh: lambda layer, g, x, y: aten.tanh_backward(g, y),
    nn.ELU: lambda layer, g, x, y: aten.elu_backward(g, layer.alpha, 1.0, 1.0, False, x),
    nn.SELU: lambda layer, g, x, y: aten.elu_backward(g, SELU_ALPHA, SELU_SCALE, 1.0, False, x),
    nn.ReLU: lambda layer, g, x, y: aten.threshold_backward(g, y, 0.0),
    nn.SiLU: lambda layer, g, x, y: aten.silu_backward(g, x),
    nn.GELU: lambda layer, g, x, y: aten.gelu_backward(g, x, approximate=layer.approximate),
}


class Network:
    """A chain of layers that can be run backwards."""

    def __init__(self, chain: Chain) -> None:
        """Read the chain's weights where they lie: in the policy's `flat`."""
        self._chain = chain
        self._layers = [
            (layer, layer.bias.detach(), layer.weight.detach(), layer.weight.detach().t())
            if isinstance(layer, nn.Linear)
            else (layer, None, None, None)
            for layer in chain.layers
        ]
        self._kept: list[torch.Tensor] = []  # what each layer read, and at last the output

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Return weights and biases in the order of `backward`'s gradients."""
        return [p for layer in self._chain.layers for p in layer.parameters()]

    def input(self, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the first layer reads of N samples: flattened, normalised, side by side."""
        parts = []
        for group, normalizer in zip(self._chain.groups, self._chain.normalizers, strict=True):
            x = obs[group].reshape(obs[group].shape[0], -1)
            parts.append(x.to(torch.float32) if normalizer is None else normalizer(x))
        return torch.cat(parts, dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output [M, ...] for inputs [M, O], and keep what `backward` needs."""
        self._kept = [x]
        for layer, bias, _, weight_t in self._layers:
            x = layer(x) if bias is None or weight_t is None else torch.addmm(bias, x, weight_t)
            self._kept.append(x)
        return x

    def backward(self, gradient: torch.Tensor) -> list[torch.Tensor]:
        """Return the gradient of each of `parameters`, given the output's [M, ...]."""
        found: list[torch.Tensor] = []
        for index in reversed(range(len(self._layers))):
            layer, _, weight, _ = self._layers[index]
            x, y = self._kept[index], self._kept[index + 1]
            if weight is None:
                gradient = SLOPES[type(layer)](layer, gradient, x, y)
                continue
            found[:0] = [torch.mm(gradient.t(), x), gradient.sum(0)]
            if index:
                gradient = torch.mm(gradient, weight)
        return found
