"""The actor's and the critic's networks: MLPs, or what another package registers.

Used by the learner and by every collector.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.system import entry_points

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


def make_network(config: PolicyConfig, role: str, num_inputs: int, num_outputs: int) -> nn.Module:
    """Build a function of [N, num_inputs] -> [N, num_outputs], with fresh weights.

    A registered network is `build(config, role, num_inputs, num_outputs) -> nn.Module`: float32
    parameters, and nothing else that it remembers or draws (no buffers, no dropout), because
    acting and learning must compute the same.

    Args:
        config: Its `network` chooses; `hidden_dims`, `activation` and the critic's are for
            registered networks to read as well.
        role: `actor` or `critic`.
        num_inputs: The sizes of all obs groups of the role, together.
        num_outputs: `num_outputs` of the actor's distribution; 1 for the critic.

    Raises:
        ConfigError: A registered network that breaks this contract.
    """
    if config.network not in entry_points.BUILT_IN[entry_points.NETWORKS]:
        return _registered(config, role, num_inputs, num_outputs)
    dims, activation = config.hidden_dims, config.activation
    if role == "critic":
        dims = dims if config.critic_hidden_dims is None else config.critic_hidden_dims
        activation = config.critic_activation or activation
    return mlp([num_inputs, *dims, num_outputs], ACTIVATIONS[activation])


def is_chain(network: nn.Module) -> bool:
    """Return whether a network is linear layers with biases, and known activations between."""
    if type(network) is not nn.Sequential or not len(network):
        return False
    ends = (type(network[0]), type(network[-1]))
    linear = [layer for layer in network if type(layer) is nn.Linear and layer.bias is not None]
    others = [layer for layer in network if type(layer) in ACTIVATIONS.values()]
    return ends == (nn.Linear, nn.Linear) and len(linear) + len(others) == len(network)


def start_at_zero(network: nn.Module, first: int) -> None:
    """Have a network begin by giving 0 for its outputs from `first` on, if its last layer is known.

    So the second parameters of a distribution depend on no observation at first, as in rsl_rl.
    """
    last = network[-1] if isinstance(network, nn.Sequential) else None
    if isinstance(last, nn.Linear) and last.bias is not None:
        with torch.no_grad():
            last.weight[first:] = 0.0
            last.bias[first:] = 0.0


def last_layer(critic: nn.Module) -> nn.Linear:
    """Return the layer that PopArt rescales.

    Raises:
        ConfigError: The critic is no `nn.Sequential` that ends in a `nn.Linear` with a bias.
    """
    last = critic[-1] if isinstance(critic, nn.Sequential) else None
    if isinstance(last, nn.Linear) and last.bias is not None:
        return last
    raise ConfigError(
        "policy.normalize_values=true: needs a critic that is an nn.Sequential ending in an "
        "nn.Linear with a bias, and policy.network gives none; set it to false"
    )


def mlp(sizes: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Return linear layers with PyTorch's own initial weights, as rsl_rl's.

    Orthogonal weights of gain sqrt(2) were tried: with ELU they make the first gradients tens of
    times larger, the KL schedule cuts the learning rate, and mjlab's Cartpole learns far later.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def _registered(config: PolicyConfig, role: str, num_inputs: int, num_outputs: int) -> nn.Module:
    build = entry_points.load("policy.network", config.network, entry_points.NETWORKS)
    where = f"policy.network={config.network}: the {role}"
    try:
        network = build(config, role, num_inputs, num_outputs)
        if not isinstance(network, nn.Module):
            raise ConfigError(f"{where} is a {type(network).__name__}, not an nn.Module")
        sample = torch.randn(3, num_inputs)
        with torch.no_grad():
            first, second = network(sample), network(sample)
    except (TypeError, ValueError, RuntimeError) as e:
        text = " ".join(str(e).split())
        raise ConfigError(f"{where} cannot be built: {type(e).__name__}: {text}") from e
    if tuple(first.shape) != (3, num_outputs):
        raise ConfigError(f"{where} gives {tuple(first.shape)} for 3 rows, not (3, {num_outputs})")
    check_contract(network, first, second, where)
    return network


def check_contract(
    network: nn.Module, first: torch.Tensor, second: torch.Tensor, where: str
) -> None:
    """Check that a registered module remembers and draws nothing, as acting and learning need.

    Args:
        network: Built by another package.
        first: What it gives for a sample.
        second: What it gives for the same one again.
        where: Begins the messages.

    Raises:
        ConfigError: It breaks the contract.
    """
    if any(True for _ in network.buffers()):
        raise ConfigError(f"{where} has buffers (batch norm?); only parameters are supported")
    if wrong := [n for n, p in network.named_parameters() if p.dtype != torch.float32]:
        raise ConfigError(f"{where}: the parameter {wrong[0]} is not float32")
    if not torch.equal(first, second):
        raise ConfigError(f"{where} gives another result each time (dropout?); it must not")
