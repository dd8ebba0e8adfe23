"""Gymnasium's action spaces as the contract has them. Used wherever an env is hosted."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from isaac_hydra_ext.envs.contract import ActionSpec
from isaac_hydra_ext.errors import EnvError


def read_action_space(space: gym.Space, where: str = "") -> tuple[ActionSpec, np.ndarray]:
    """Read one env's action space; the batched one has the envs in its shape.

    Args:
        space: Box of floats in one dimension, Discrete, or MultiDiscrete in one dimension.
        where: Begins the message of an error.

    Returns:
        The spec, and what the env calls the first choice where the policy says 0: a number or [A].

    Raises:
        EnvError: Another space.
    """
    floats = space.dtype is not None and np.issubdtype(space.dtype, np.floating)
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and floats:
        low, high = space.low.tolist(), space.high.tolist()
        spec = ActionSpec("continuous", space.shape[0], tuple(low), tuple(high))
        return spec, np.zeros((), np.int64)
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", 1, nvec=(int(space.n),)), np.asarray(space.start, np.int64)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        nvec = tuple(int(n) for n in space.nvec)
        first = np.asarray(getattr(space, "start", 0), np.int64)  # Gymnasium >= 1.0
        return ActionSpec("discrete", len(nvec), nvec=nvec), first
    raise EnvError(
        f"{where}action space {' '.join(str(space).split())}: not supported; Box of floats in one "
        "dimension, Discrete and one-dimensional MultiDiscrete are"
    )
