"""An actor and a critic that remember: normalised observations -> LSTM or GRU -> layers.

Used by the learner, by every collector and wherever a policy is played. The two have memories of
their own, as in rsl_rl. What the actor remembers is kept up by `act`; the critic's state is needed
once a rollout only, and `critic_states` follows it then.
"""

from collections.abc import Iterator

import torch
from torch import nn

from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.errors import LearnerError
from isaac_hydra_ext.models import sequence
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.networks import make_network
from isaac_hydra_ext.models.policy import Acted, Samples, Sequences, State

KINDS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
PARTS = ("h", "c")  # of a state; a GRU has the first alone


class RecurrentNetwork(nn.Module):
    """A memory and the network that reads it.

    Attributes:
        memory: `nn.LSTM` or `nn.GRU`, whose weights are used step by step (`sequence.py`).
        head: Reads the output of its last layer.
    """

    def __init__(self, config: PolicyConfig, role: str, num_inputs: int, num_outputs: int) -> None:
        """Build with fresh weights; arguments as of `make_network`."""
        super().__init__()
        recurrent = config.recurrent
        assert recurrent.kind is not None
        self.memory = KINDS[recurrent.kind](num_inputs, recurrent.hidden, recurrent.layers)
        self.head = make_network(config, role, recurrent.hidden, num_outputs)

    def fresh(self, role: str, num_envs: int, device: torch.device) -> State:
        """Return the state of an episode's start: `<role>_h` and `<role>_c`, [B, layers, H]."""
        shape = (num_envs, self.memory.num_layers, self.memory.hidden_size)
        return {name: torch.zeros(shape, device=device) for name in self.names(role)}

    def names(self, role: str) -> list[str]:
        """Return the names of the state's parts."""
        count = 2 if isinstance(self.memory, nn.LSTM) else 1
        return [f"{role}_{part}" for part in PARTS[:count]]


class RecurrentActorCritic(ActorCritic):
    """`ActorCritic` with memories; see `Policy` for the methods."""

    actor: RecurrentNetwork
    critic: RecurrentNetwork
    make_network = staticmethod(RecurrentNetwork)

    @property
    def actor_head(self) -> nn.Module:
        return self.actor.head

    @property
    def critic_head(self) -> nn.Module:
        return self.critic.head

    def initial_state(self, num_envs: int) -> State:
        return self.actor.fresh("actor", num_envs, self.flat.device)

    def initial_critic_state(self, num_envs: int) -> State:
        if not self.critic_groups:  # a student has no critic
            return {}
        return self.critic.fresh("critic", num_envs, self.flat.device)

    def act(self, obs: Samples, state: State, noise_BN: torch.Tensor | None) -> Acted:
        inputs, names = self.actor_input(obs), self.actor.names("actor")
        after = sequence.step(self.actor.memory, inputs, tuple(state[n] for n in names))
        params = self.params_of(self.actor.head(sequence.output(after)))
        return self.acted(params, noise_BN, dict(zip(names, after, strict=True)))

    def action_params(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        features = _remembered(self.actor, "actor", self.actor_input(samples), sequences)
        return self.params_of(self.actor.head(features))

    def raw_value(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        features = _remembered(self.critic, "critic", self.critic_input(samples), sequences)
        return self.critic.head(features).squeeze(-1)

    def exported_step(
        self, obs: Samples, state: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Do as `act` by the library's own module, which other formats have an operator for.

        Args:
            obs: `actor_groups`, [N, ...] each.
            state: h and c, or h alone, [layers, N, H] each.

        Returns:
            The distribution's parameters [N, P], and the state after the step.
        """
        memory, inputs_1NI = self.actor.memory, self.actor_input(obs).unsqueeze(0)
        if isinstance(memory, nn.LSTM):
            out_1NH, after = memory(inputs_1NI, state)
        else:
            out_1NH, after = memory(inputs_1NI, state[0])
            after = (after,)
        return self.params_of(self.actor.head(out_1NH.squeeze(0))), after

    @torch.no_grad()
    def critic_states(self, samples: Samples, sequences: Sequences) -> Iterator[State]:
        names, memory = self.critic.names("critic"), self.critic.memory
        T, C = sequences.starts_TC.shape
        state = tuple(sequences.state[name] for name in names)
        for t, starts_C in enumerate(sequences.starts_TC):
            inputs = self.critic_input({g: x[t * C : (t + 1) * C] for g, x in samples.items()})
            state = sequence.step(memory, inputs, sequence.kept(state, starts_C))
            yield dict(zip(names, state, strict=True))


def _remembered(
    network: RecurrentNetwork, role: str, inputs_MI: torch.Tensor, sequences: Sequences | None
) -> torch.Tensor:
    """Return what the memory says at each step, [M, H]."""
    if sequences is None:
        raise LearnerError(
            "policy.recurrent: the policy was asked about samples without `sequences`, as a loss "
            "of ppo.terms or a package's algorithm may do; leave that out, or policy.recurrent"
        )
    T, C = sequences.starts_TC.shape
    inputs_TCI = inputs_MI.unflatten(0, (T, C))
    state = tuple(sequences.state[name] for name in network.names(role))
    return sequence.run(network.memory, inputs_TCI, state, sequences.starts_TC).flatten(0, 1)
