"""Symmetry functions as tasks have them: right ones, and each way of being none."""

from types import SimpleNamespace
from typing import Any

import torch


def four_legs(env: Any, obs: Any = None, actions: Any = None) -> tuple[Any, Any]:
    """Left-right, and left-right twice: a copy that is the original again. As Isaac Lab's are."""
    assert isinstance(env, SimpleNamespace)  # the task's own env, not ours
    made, acted = None, None
    if obs is not None:
        made = obs.repeat(3)
        rows = obs.batch_size[0]
        mirrored = obs["policy"][:, [0, 2, 1]] * torch.tensor([-1.0, 1.0, 1.0])
        made["policy"][rows : 2 * rows] = mirrored
        term = made["rest", "clock"]
        term[rows : 2 * rows] = -obs["rest", "clock"]
    if actions is not None:
        acted = torch.cat([actions, actions.flip(1), actions])
    return made, acted


def older(env: Any, obs: Any = None, actions: Any = None, obs_type: str = "policy") -> Any:
    """As rsl_rl 2 called them: each group by itself."""
    assert obs_type in ("policy", "critic")
    return torch.cat([obs, -obs]), torch.cat([actions, -actions])


def _plain(change: Any) -> Any:
    def function(env: Any, obs: Any, actions: Any, obs_type: str) -> tuple[Any, Any]:
        return torch.cat([obs, change(obs)]), torch.cat([actions, -actions])

    return function


scales = _plain(lambda x: x * torch.tensor([1.0, 0.5, -1.0]))
mixes = _plain(lambda x: torch.stack([x[:, 0], x[:, 1] - 2 * x[:, 2], x[:, 2]], dim=1))
shifts = _plain(lambda x: x + torch.tensor([0.0, 0.0, 3.0]))
repeats = _plain(lambda x: x[:, [0, 0, 2]])
forgets = _plain(lambda x: x * torch.tensor([1.0, 0.0, 1.0]))
clamps = _plain(lambda x: -x.clamp(-100.0, 100.0))
shortens = _plain(lambda x: x[: len(x) // 2])


def reorders(env: Any, obs: Any, actions: Any, obs_type: str) -> tuple[Any, Any]:
    """The mirror first."""
    return torch.cat([-obs, obs]), torch.cat([-actions, actions])


def raises(env: Any, obs: Any, actions: Any, obs_type: str) -> tuple[Any, Any]:
    raise RuntimeError("no such\nsensor")
