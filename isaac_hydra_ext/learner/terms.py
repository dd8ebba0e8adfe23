"""Further losses of PPO: the protocol. Runs in the learner's process.

A package registers a term in the entry-point group `isaac_hydra_ext.terms`, as `make(settings,
policy, spec, seed, device) -> Term`, and a user adds it with `ppo.terms={my_term: {weight: 0.1}}`:
`settings` is that mapping, the term's own to read.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import nn

from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.models.policy import Policy, Samples


class Term(Protocol):
    """A loss beside the actor's and the critic's, with parameters of its own if it likes.

    All of it is device tensors of fixed shapes without host synchronisation: it is part of the
    captured update. A stopped or undone update leaves its parameters, moments and state as they
    were.

    Attributes:
        learning_rate: Of Adam on its own parameters. The policy's have the run's.
        weight: What the loss is trained with; its metric is without it.
    """

    learning_rate: float
    weight: float = 1.0

    def begin(self, group: Group, num_envs: int) -> None:
        """Learn of the ranks that learn together, and how many envs this one has; called once."""

    def prepare(self, batch: RolloutBatch) -> Mapping[str, torch.Tensor]:
        """Compute what is fixed during an update, before values and advantages are.

        Args:
            batch: The iteration's rollouts. `reward_TN` may be changed in place.

        Returns:
            Name -> [N, ...], N = T * B * W; `loss` is given a minibatch's rows of it as
            `term/<name>`.
        """
        return {}

    def loss(self, policy: Policy, samples: Samples) -> torch.Tensor:
        """Return the loss of one minibatch, 0-dim, its weight included.

        Args:
            policy: The current one; what the loss reads of it is trained as well.
            samples: Obs groups, `field/<name>` and `term/<name>` by name, `action`: [M, ...] each.
        """
        ...

    def metrics(self) -> Mapping[str, torch.Tensor]:
        """Return what to log of this update besides its loss: tag -> 0-dim."""
        return {}

    def parameters(self) -> Sequence[nn.Parameter]:
        """Return its own parameters, float32; they are moved into one vector once it is built."""
        return []

    def state(self) -> Mapping[str, torch.Tensor]:
        """Return what else it goes on from, such as statistics: saved, restored and undone.

        All ranks' are the same, but where a name ends with `checkpoints.fit.PER_ENV`: of each env
        [N]. A run with another number of envs goes on without that.
        """
        return {}
