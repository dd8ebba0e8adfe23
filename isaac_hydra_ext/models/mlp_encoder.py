"""An encoder of vectors: an MLP before the MLP. Used wherever a policy acts or learns.

`policy.encoders.<group>={kind: mlp, hidden_dims: [256], features: 64}`, as the shared encoders of
Isaac Lab's tasks; an encoder owns its normalisation, and this one has none.
"""

from itertools import pairwise

import torch
from torch import nn

from isaac_hydra_ext.config.encoders import MlpConfig
from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.models.networks import ACTIVATIONS


class MlpEncoder(nn.Sequential):
    """Flattened observations [N, ...] -> [N, features]."""

    def __init__(self, config: MlpConfig, spec: TensorSpec) -> None:
        """Build it with fresh weights; `spec` is the group's."""
        size = max(1, torch.Size(spec.shape).numel())
        sizes = [size, *config.hidden_dims, config.features]
        kinds = [config.activation] * len(config.hidden_dims) + [config.last_activation]
        layers: list[nn.Module] = []
        for (fan_in, fan_out), kind in zip(pairwise(sizes), kinds, strict=True):
            layers.append(nn.Linear(fan_in, fan_out))
            if kind is not None:
                layers.append(ACTIVATIONS[kind]())
        super().__init__(*layers)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the features [N, F]."""
        return super().forward(obs.reshape(obs.shape[0], -1).to(torch.float32))
