"""The rules by which `ppo.optimizer` steps on one flat vector. Runs in the learner's process.

Each is torch's of the same name with its defaults, of which the learning rate alone is set, as
rsl_rl does. Written out for the reasons that `adam.py` gives.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from isaac_hydra_ext.learner.adam import adam_, no_moments

WEIGHT_DECAY = 1e-2  # of torch.optim.AdamW
ALPHA, EPSILON = 0.99, 1e-8  # of torch.optim.RMSprop


class Rule(NamedTuple):
    """One optimizer.

    Attributes:
        begin: Returns what it remembers of K parameters before its first step, by name.
        step_: Steps in place, given parameters [K], gradient [K], lr (0-dim), a 0-dim bool under
            which every bit stays as it is where false, and what it remembers, by name.
    """

    begin: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    step_: Callable[..., None]


def _adamw_(
    parameters: torch.Tensor,
    gradient: torch.Tensor,
    lr: torch.Tensor,
    steps: torch.Tensor,
    **moments: torch.Tensor,
) -> None:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""
    parameters.mul_(torch.where(steps, 1.0 - lr * WEIGHT_DECAY, 1.0))
    adam_(parameters, gradient, lr, steps, **moments)


def _sgd_(
    parameters: torch.Tensor, gradient: torch.Tensor, lr: torch.Tensor, steps: torch.Tensor
) -> None:
    """Plain gradient descent, without momentum."""
    parameters.sub_(torch.where(steps, lr * gradient, 0.0))


def _rmsprop_(
    parameters: torch.Tensor,
    gradient: torch.Tensor,
    lr: torch.Tensor,
    steps: torch.Tensor,
    square_avg: torch.Tensor,
) -> None:
    """RMSprop (Hinton 2012, lecture 6e), neither centred nor with momentum."""
    moved = square_avg.lerp(gradient.square(), 1.0 - ALPHA)
    square_avg.copy_(torch.where(steps, moved, square_avg))
    step = lr * gradient / square_avg.sqrt().add_(EPSILON)
    parameters.sub_(torch.where(steps, step, 0.0))


RULES = {
    "adam": Rule(no_moments, adam_),
    "adamw": Rule(no_moments, _adamw_),
    "sgd": Rule(lambda parameters: {}, _sgd_),
    "rmsprop": Rule(lambda p: {"square_avg": torch.zeros_like(p)}, _rmsprop_),
}
