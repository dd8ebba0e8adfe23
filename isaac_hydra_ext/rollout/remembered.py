"""What a policy remembers of running episodes, as JSON-ready data: saved beside the env's state.

Runs wherever the simulation does. The bytes are those of the tensors, so that a resumed run goes on
to the last bit.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.errors import CheckpointError
from isaac_hydra_ext.models.policy import State

POLICY = "policy"  # the key in an env's state
BURN_IN = "burn_in"  # in that, of how many steps there is a past


def to_json(state: State) -> dict[str, str]:
    """Return the state as text by name."""
    return {
        name: base64.b64encode(x.contiguous().cpu().numpy().tobytes()).decode()
        for name, x in state.items()
    }


def from_json(saved: Mapping[str, Any] | None, fresh: State) -> State:
    """Return what `to_json` was given; `fresh` where nothing was saved.

    Args:
        saved: As it came from a checkpoint.
        fresh: The state of an episode's start, of the shapes that are expected.

    Raises:
        CheckpointError: It is of another policy, or damaged.
    """
    if not saved:
        return fresh
    return {name: _tensor(name, saved.get(name), x) for name, x in fresh.items()}


def _tensor(name: str, text: Any, like: torch.Tensor) -> torch.Tensor:
    host = like.cpu().numpy()
    try:
        found = np.frombuffer(base64.b64decode(str(text), validate=True), host.dtype)
        if found.shape != (host.size,) or not np.isfinite(found).all():
            raise ValueError(f"{found.size} numbers, expected {host.size} finite ones")
    except (binascii.Error, ValueError) as e:
        raise CheckpointError(f"what the policy remembers ({name}) does not fit: {e}") from e
    return torch.from_numpy(found.reshape(host.shape).copy()).to(like.device)


def json_bytes(spec: TensorSpec) -> int:
    """Return how many bytes at most a part of the state takes for one env."""
    nbytes = math.prod(spec.shape) * getattr(torch, spec.dtype).itemsize
    return 64 + 4 * (nbytes // 3 + 2)
