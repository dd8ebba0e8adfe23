"""How the terms of a run are built and trained. Runs in the learner's process."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.learner.adam import adam_, no_moments
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.rnd import make_rnd
from isaac_hydra_ext.learner.terms import Term
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.seeding import Stream, stream_seed

OWN: dict[str, Callable[..., Term]] = {"rnd": make_rnd}  # that this package brings


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
        make = OWN.get(name) or entry_points.load("ppo.terms", name, entry_points.TERMS)
        term_seed = stream_seed(seed, Stream.TERM, index)
        terms.append(TrainedTerm(name, make(own or {}, policy, spec, term_seed, device), device))
    return terms
