"""The proof that an exported policy with memory remembers: 100 steps of three envs, with resets.

Runs in the process of `appo export`, on the CPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.policy import restarted

ENVS = 3
# Its arguments: obs groups [N, ...], then the state [layers, N, H]; it returns actions first, the
# state last, as arrays or tensors.
Step = Callable[..., Sequence[Any]]


def ended(step: int) -> torch.Tensor:
    """Return [ENVS] whether an episode ends with a step: in each env at other times."""
    return torch.tensor([(step + 7 * env) % 23 == 22 for env in range(ENVS)])


def reference_params(policy: ActorCritic, obs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the distribution's parameters that acting finds, [T * ENVS, P].

    Args:
        policy: With memory.
        obs: Its groups, [T * ENVS, ...] each.
    """
    fresh = policy.initial_state(ENVS)
    state, found = fresh, []
    for step, groups in enumerate(_by_step(obs)):
        acted = policy.act(dict(zip(policy.actor_groups, groups, strict=True)), state, None)
        state = restarted(acted.state, fresh, ended(step))
        found.append(acted.params_BP)
    return torch.cat(found)


def over_steps(
    function: Step, fresh: Sequence[torch.Tensor], obs: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Carry the state from step to step, of the first env alone, and of the others together.

    Args:
        function: The exported one.
        fresh: The state of one env at an episode's start, [layers, 1, H] each.
        obs: As of `reference_params`.

    Returns:
        What else it gives, [T * ENVS, ...] each.
    """
    parts = []
    for envs in (slice(0, 1), slice(1, ENVS)):
        count = len(range(ENVS)[envs])
        state = [x.repeat(1, count, 1) for x in fresh]
        rows = []
        for step, groups in enumerate(_by_step(obs)):
            given = function(*(x[envs] for x in groups), *state)
            outputs = [torch.as_tensor(x) for x in given]
            keep = (~ended(step)[envs]).view(1, -1, 1)
            state = [x * keep for x in outputs[-len(state) :]]
            rows.append(outputs[: -len(state)])
        parts.append([torch.stack(output) for output in zip(*rows, strict=True)])
    return [torch.cat(both, dim=1).flatten(0, 1) for both in zip(*parts, strict=True)]


def _by_step(obs: Sequence[torch.Tensor]) -> Sequence[Sequence[torch.Tensor]]:
    return list(zip(*(x.unflatten(0, (-1, ENVS)) for x in obs), strict=True))
