"""What acts and what is learned: the protocol between a policy and everybody who uses one.

Used by the learner, by every collector, by the evaluator and by commands. A package registers its
own in the entry-point group `isaac_hydra_ext.policies`, as `make(config, spec, seed, device) ->
Policy`, and is chosen by `policy.kind`. `actor_critic.py` is the one that this package brings.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.models.distributions import ActionDistribution
from isaac_hydra_ext.models.normalizer import Normalizer, Reduction, own_alone

# Of a state, where pictures are seen in stacks of K: see `stacks.py`.
FRAMES = "frames/"  # and the group: [B, K - 1, ...], the oldest first
SEEN = "frames_seen"  # [B] how many of them are of this episode
# Name -> [B, ...]: what a policy remembers of each env's episode. Empty for one without memory.
State = Mapping[str, torch.Tensor]
# Name -> [M, ...]: obs groups by their own names, recorded fields as `field/<name>`.
Samples = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Acted:
    """What a policy makes of one observation of B envs.

    Attributes:
        action_BA: As sampled, before any squashing: what the rollout holds and the ratio is of.
        env_action_BA: The env's copy of it.
        params_BP: The distribution's parameters.
        recorded: A row [B, ...] of each of `Policy.fields`.
        state: For the next step.
    """

    action_BA: torch.Tensor
    env_action_BA: torch.Tensor
    params_BP: torch.Tensor
    recorded: Mapping[str, torch.Tensor] = field(default_factory=dict)
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Sequences:
    """That M = T * C samples are C whole columns of time, time-major; for policies with memory.

    Attributes:
        state: At the columns' first step, the actor's and the critic's, name -> [C, ...].
        starts_TC: Whether an episode begins with a step: the state before it is the initial one.
    """

    state: State
    starts_TC: torch.Tensor

    def take(self, columns: torch.Tensor) -> "Sequences":
        """Return the columns of these indices."""
        state = {name: x[columns] for name, x in self.state.items()}
        return Sequences(state, self.starts_TC[:, columns])


@dataclass(frozen=True)
class Chain:
    """An actor that is nothing but layers, one after the other: it can act without modules.

    Attributes:
        groups: The obs groups, flattened side by side, that the first layer reads.
        normalizers: Of each group; None for one that is read as it is.
        layers: Linear ones with biases, and activations between them.
        std: Returns the Gaussian's std [A], which no observation changes; None where the layers
            give all of the distribution's parameters.
        std_parameter: What it is computed from; None for one that is not learned.
    """

    groups: Sequence[str]
    normalizers: Sequence[Normalizer | None]
    layers: Sequence[nn.Module]
    std: Callable[[], torch.Tensor | None]
    std_parameter: nn.Parameter | None


class Policy(Protocol):
    """Networks, their normalisers and a distribution, all of whose numbers lie in one vector.

    Learner and collectors each build their own, from the same configuration, spec and seed; a
    version is published and loaded as one copy of `flat`. Subclasses inherit what a policy without
    memory and without statistics needs.

    Attributes:
        flat: float32 [P + S]: P parameters first, in the order of `parameter_groups`, then what
            acting needs besides them (normalisers). Every tensor of the policy is a view of it.
        num_params: P.
        distribution: Turns parameters into actions, log-probs, entropies and KL.
        fields: Per-env shape and dtype of what `act` records in each step besides action and
            log-prob. The rollout's slots hold them; the learner finds them as `field/<name>`.
        actor_groups: What `action_params` reads: obs groups, or `field/<name>`.
        critic_groups: What `raw_value` reads: obs groups, as it is asked for V(s_T) too.
        images: Obs groups that the learner reads where the rollout left them, without statistics,
            and what one of them is there.
        burn_in: K steps before a rollout that its slot also holds; see `past.py`.
    """

    flat: torch.Tensor
    num_params: int
    distribution: ActionDistribution
    fields: Mapping[str, TensorSpec]
    actor_groups: Sequence[str]
    critic_groups: Sequence[str]
    images: Mapping[str, TensorSpec] = {}
    burn_in: int = 0

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Return all parameters by name of group: `actor`, `shared` if any, then the critic's.

        Each group's gradient is clipped by itself.
        """
        ...

    def initial_state(self, num_envs: int) -> State:
        """Return what acting remembers at the start of an episode, name -> [B, ...]."""
        return {}

    def initial_critic_state(self, num_envs: int) -> State:
        """Return what the critic remembers then, under other names than `initial_state`'s."""
        return {}

    def critic_states(self, samples: Samples, sequences: Sequences) -> Iterator[State]:
        """Yield what the critic remembers after each step of whole columns, [C, ...] each.

        Where an episode ends with the step, this is what it remembers of that one.

        Args:
            samples: `critic_groups`, [T * C, ...] each.
            sequences: Which columns they are.
        """
        return iter(())

    def act(self, obs: Samples, state: State, noise_BN: torch.Tensor | None) -> Acted:
        """Answer one observation of B envs.

        Args:
            obs: Those of `actor_groups` that the env gives, [B, ...] each.
            state: From `initial_state`, or from the step before.
            noise_BN: From `distribution.draw_noise`; None for the mode.
        """
        ...

    def action_params(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        """Return the distribution's parameters [M, P] for samples of a rollout.

        Args:
            samples: `actor_groups`, [M, ...] each.
            sequences: Given to a policy with memory.
        """
        ...

    def raw_value(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        """Return the critic's output [M], in whatever unit it is trained in.

        Args:
            samples: `critic_groups`, [M, ...] each.
            sequences: Given to a policy with memory.
        """
        ...

    def denormalize_value(self, value: torch.Tensor) -> torch.Tensor:
        """Turn the critic's output into returns."""
        return value

    def normalize_value(self, value: torch.Tensor) -> torch.Tensor:
        """Turn returns into what the critic is trained on."""
        return value

    @property
    def has_statistics(self) -> bool:
        """Whether `update_statistics` does something."""
        return False

    def update_statistics(
        self, obs: Samples, returns_N: torch.Tensor, combine: Reduction = own_alone
    ) -> None:
        """Merge one iteration's samples into the normalisers, once it has been learned from.

        Args:
            obs: Raw observations, group -> [N, ...].
            returns_N: Value targets.
            combine: Makes a batch's moments those of all ranks.
        """

    def after_step(self) -> None:
        """Put parameters back into their range after an optimizer step, on the device."""

    def mean_std(self) -> torch.Tensor | None:
        """Return the std averaged over actions, 0-dim; None where observations change it."""
        return None

    def chain(self) -> Chain | None:
        """Return the actor as a chain of layers, if it is one."""
        return None

    def critic_chain(self) -> Chain | None:
        """Return the critic as one; likewise."""
        return None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return every tensor that a checkpoint needs, by name; loading copies into them."""
        ...

    def eval(self) -> Any:
        """As `nn.Module.eval`."""
        ...


def restarted(state: State, fresh: State, ended_B: torch.Tensor) -> State:
    """Return `state` with the initial one where an episode ended; [B, ...] each."""
    return {
        name: torch.where(ended_B.view(-1, *[1] * (x.dim() - 1)), fresh[name], x)
        for name, x in state.items()
    }
