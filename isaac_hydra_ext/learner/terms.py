"""Further losses of PPO: the protocol, and how they are trained. Runs in the learner's process.

A package registers a term in the entry-point group `isaac_hydra_ext.terms`, as `make(settings,
policy, spec, seed, device) -> Term`, and a user adds it with `ppo.terms={my_term: {weight: 0.1}}`:
`settings` is that mapping, the term's own to read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.learner.adam import adam_, no_moments
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.models.policy import Policy, Samples
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.seeding import Stream, stream_seed


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

    def parameters(self) -> Sequence[nn.Parameter]:
        """Return its own parameters, float32; they are moved into one vector once it is built."""
        return []

    def state(self) -> Mapping[str, torch.Tensor]:
        """Return what else it goes on from, such as statistics: saved, restored and undone."""
        return {}


class TrainedTerm:
    """A term with the optimizer of its own parameters.

    Attributes:
        name: Under which the user added it.
        term: The term.
    """

    def __init__(self, name: str, term: Term, device: torch.device) -> None:
        """Move its parameters into one vector, and begin with no moments."""
        self.name, self.term = name, term
        self.parameters = list(term.parameters())
        flat = [p.data.reshape(-1) for p in self.parameters]
        self._flat = torch.cat(flat) if flat else torch.zeros(0, device=device)
        offset = 0
        for parameter in self.parameters:
            view = self._flat[offset : offset + parameter.numel()].view(parameter.shape)
            parameter.data, offset = view, offset + parameter.numel()
        self._moments = no_moments(self._flat)

    def step(
        self, gradients: Sequence[torch.Tensor], stop: torch.Tensor, group: Group, rows: int
    ) -> None:
        """Take one step on its own parameters, or none if `stop` is 1.

        `rows` is as of `FlatOptimizer.step`.
        """
        if not gradients:
            return
        gradient = group.mean_of_samples(torch.cat([g.reshape(-1) for g in gradients]), rows)
        lr = torch.full((), self.term.learning_rate, device=gradient.device)
        adam_(self._flat, gradient, lr, stop == 0, **self._moments)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything that it goes on from, by name; loading copies into it."""
        own = {} if not self.parameters else {"parameters": self._flat, **self._moments}
        return {f"term.{self.name}.{k}": v for k, v in {**own, **self.term.state()}.items()}


def make_terms(
    settings: Mapping[str, Any], policy: Policy, spec: EnvSpec, seed: int, device: torch.device
) -> list[TrainedTerm]:
    """Build the terms of `ppo.terms`, in the order in which they are named.

    Args:
        settings: Name -> what the term reads.
        policy: That is trained.
        spec: Of one collector's env.
        seed: Of the run; each term is given one of its own.
        device: Where to learn.
    """
    terms = []
    for index, (name, own) in enumerate(settings.items()):
        make = entry_points.load("ppo.terms", name, entry_points.TERMS)
        term_seed = stream_seed(seed, Stream.TERM, index)
        terms.append(TrainedTerm(name, make(own or {}, policy, spec, term_seed, device), device))
    return terms
