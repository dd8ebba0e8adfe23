"""Chains of layers of equal sizes, run forwards and backwards as one. Runs in the learner.

Samples are columns: a layer's input is [I + 1, M] with ones as its last row, and its weights are
[O, I + 1] with the biases as their last column, so that a product is all that either direction
takes. K chains of equal sizes, such as an actor and its critic, are K of each side by side.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from isaac_hydra_ext.models.policy import Chain

aten = torch.ops.aten
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, eq. 14


def _elu(layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    if layer.alpha != 1.0:
        aten.elu.out(x, layer.alpha, out=y)
        return
    # In four passes it is twice as fast as by `expm1`; exp(x) - 1 is never below x.
    torch.clamp_max(x, 0.0, out=y)
    torch.maximum(x, y.exp_().sub_(1.0), out=y)


# (layer, input, where its output goes)
ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module, torch.Tensor, torch.Tensor], object]] = {
    nn.Tanh: lambda layer, x, y: torch.tanh(x, out=y),
    nn.ELU: _elu,
    nn.SELU: lambda layer, x, y: aten.elu.out(x, SELU_ALPHA, SELU_SCALE, out=y),
    nn.ReLU: lambda layer, x, y: torch.clamp_min(x, 0.0, out=y),
    nn.SiLU: lambda layer, x, y: aten.silu.out(x, out=y),
    nn.GELU: lambda layer, x, y: aten.gelu.out(x, approximate=layer.approximate, out=y),
}
# (layer, gradient of its output, its input, its output): the gradient becomes its input's.
Slope = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], object]
SLOPES: dict[type[nn.Module], Slope] = {
    nn.Tanh: lambda layer, g, x, y: aten.tanh_backward.grad_input(g, y, grad_input=g),
    nn.ELU: lambda layer, g, x, y: aten.elu_backward.grad_input(
        g, layer.alpha, 1.0, 1.0, True, y, grad_input=g
    ),
    nn.SELU: lambda layer, g, x, y: aten.elu_backward.grad_input(
        g, SELU_ALPHA, SELU_SCALE, 1.0, True, y, grad_input=g
    ),
    nn.ReLU: lambda layer, g, x, y: aten.threshold_backward.grad_input(g, y, 0.0, grad_input=g),
    nn.SiLU: lambda layer, g, x, y: aten.silu_backward.grad_input(g, x, grad_input=g),
    nn.GELU: lambda layer, g, x, y: aten.gelu_backward.grad_input(
        g, x, approximate=layer.approximate, grad_input=g
    ),
}


class Stack:
    """K chains of linear layers with an activation after each but the last.

    Attributes:
        num_chains: K.
        rows: Of all that the first layers read, K * (I + 1).
        index_S: For each of the S numbers of all layers' weights [K, O, I + 1], one layer after the
            other, which of the policy's parameters it is; -1 where a narrower last layer has none.
    """

    def __init__(self, chains: Sequence[Chain], places: Mapping[int, int]) -> None:
        """Read the sizes.

        Args:
            chains: Of equal sizes, but for what their last layers give.
            places: A parameter's id -> where it begins among the policy's.
        """
        linear = [[_linear(layer) for layer in chain.layers[::2]] for chain in chains]
        self.num_chains = len(chains)
        self.rows = self.num_chains * (linear[0][0].in_features + 1)
        self._activations = [*chains[0].layers[1::2]]
        layers = [
            torch.nn.utils.rnn.pad_sequence(
                [_index(layer, places) for layer in layers], batch_first=True, padding_value=-1
            )
            for layers in zip(*linear, strict=True)
        ]
        self._shapes = [index.shape for index in layers]
        self.index_S = torch.cat([index.flatten() for index in layers])

    def on(self, weights_S: torch.Tensor, gradient_S: torch.Tensor, x_KIM: torch.Tensor) -> "Pass":
        """Return what runs it on M samples; arguments as of `Pass`."""
        sizes = [shape.numel() for shape in self._shapes]
        weights, gradients = (
            [part.view(shape) for part, shape in zip(x.split(sizes), self._shapes, strict=True)]
            for x in (weights_S, gradient_S)
        )
        return Pass(self._activations, weights, gradients, x_KIM)


class Pass:
    """Both directions for M samples, in tensors and views that are made once.

    Attributes:
        output_KOM: What `forward` gives.
        slope_KOM: What `backward` is given: the loss's gradient of it.
    """

    def __init__(
        self,
        activations: Sequence[nn.Module],
        weights: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        x_KIM: torch.Tensor,
    ) -> None:
        """Make room.

        Args:
            activations: After each layer but the last.
            weights: Of each layer, [K, O, I + 1].
            gradients: Where `backward` puts theirs.
            x_KIM: What the first layer reads, with its row of ones.
        """
        K, _, M = x_KIM.shape
        self._forward, self._backward = [], []
        slope = None
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            O = weight.shape[1]  # noqa: E741
            pre, of_pre = torch.empty(K, O, M), torch.zeros(K, O, M)
            layer = activations[index] if index < len(activations) else None
            y = torch.ones(K, O + 1, M)
            self._forward.append((weight, x_KIM, pre, layer, y[:, :O]))
            to_input = None if slope is None else weight[:, :, :-1].transpose(1, 2)
            self._backward.append(
                (of_pre, x_KIM.transpose(1, 2), gradient, to_input, slope, self._forward[index - 1])
            )
            x_KIM, slope = y, of_pre
        self._backward.reverse()
        self.output_KOM, self.slope_KOM = self._forward[-1][2], self._backward[0][0]

    def forward(self) -> None:
        """Compute the outputs from the inputs and weights as they are now."""
        for weight, x, pre, layer, y in self._forward:
            torch.bmm(weight, x, out=pre)
            if layer is not None:
                ACTIVATIONS[type(layer)](layer, pre, y)

    def backward(self) -> None:
        """Compute the weights' gradients from `slope_KOM`."""
        for of_pre, x_t, gradient, to_input, of_input, (*_, pre, layer, y) in self._backward:
            torch.bmm(of_pre, x_t, out=gradient)
            if to_input is not None:
                torch.bmm(to_input, of_pre, out=of_input)
                SLOPES[type(layer)](layer, of_input, pre, y)


def inputs(chain: Chain, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return what a chain's first layer reads of N samples, as [I + 1, N] with ones at the end."""
    parts = []
    for group, normalizer in zip(chain.groups, chain.normalizers, strict=True):
        x = obs[group].reshape(obs[group].shape[0], -1)
        parts.append(x.to(torch.float32) if normalizer is None else normalizer(x))
    x_NI = torch.cat(parts, dim=-1)
    return torch.cat([x_NI.t(), x_NI.new_ones(1, x_NI.shape[0])])


def sizes(chain: Chain) -> tuple[object, ...] | None:
    """Return what chains of one `Stack` have in common; None if it cannot be one.

    That is the activations, as `repr` tells them, and how many numbers each layer reads.
    """
    linear, others = chain.layers[::2], chain.layers[1::2]
    known = all(type(layer) in SLOPES for layer in others)
    if not known or not all(type(layer) is nn.Linear for layer in linear):
        return None
    return (*map(repr, others), *(_linear(layer).in_features for layer in linear))


def _linear(layer: nn.Module) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    return layer


def _index(layer: nn.Linear, places: Mapping[int, int]) -> torch.Tensor:
    """Return the places of a layer's weights and biases, [O, I + 1]."""
    parts = [
        places[id(p)] + torch.arange(p.numel()).view(layer.out_features, -1)
        for p in (layer.weight, layer.bias)
    ]
    return torch.cat(parts, dim=1)
