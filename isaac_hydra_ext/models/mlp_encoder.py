"""An encoder of vectors: an MLP before the MLP. Used wherever a policy acts or learns.

`policy.encoders.<group>={kind: mlp, hidden_dims: [256], features: 64}`, as the shared encoders of
Isaac Lab's tasks; an encoder owns its normalisation, and this one has none.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.models.networks import ACTIVATIONS


def build(settings: Mapping[str, Any], spec: TensorSpec) -> nn.Module:
    """Build it; see `make_encoder`. Another key than those of `MlpEncoder` is a TypeError."""
    options = {name: value for name, value in settings.items() if name != "kind"}
    return MlpEncoder(spec, **options)


class MlpEncoder(nn.Sequential):
    """Flattened observations [N, ...] -> [N, features]."""

    def __init__(
        self,
        spec: TensorSpec,
        hidden_dims: Sequence[int] = (256,),
        features: int = 64,
        activation: str = "elu",
        last_activation: str | None = "elu",
    ) -> None:
        """Build it with fresh weights.

        Args:
            spec: Of the group.
            hidden_dims: Units of its hidden layers.
            features: How many numbers it gives.
            activation: Of the hidden layers.
            last_activation: Of the features; None for none.
        """
        kinds = [activation] * len(hidden_dims) + [last_activation]
        if unknown := [kind for kind in kinds if kind is not None and kind not in ACTIVATIONS]:
            raise ValueError(f"activation={unknown[0]}: must be one of {', '.join(ACTIVATIONS)}")
        sizes = [max(1, torch.Size(spec.shape).numel()), *hidden_dims, features]
        layers: list[nn.Module] = []
        for (fan_in, fan_out), kind in zip(pairwise(sizes), kinds, strict=True):
            layers.append(nn.Linear(fan_in, fan_out))
            if kind is not None:
                layers.append(ACTIVATIONS[kind]())
        super().__init__(*layers)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the features [N, F]."""
        return super().forward(obs.reshape(obs.shape[0], -1).to(torch.float32))
