"""The last K steps before a rollout, `rollout.burn_in`, and what a memory makes of them.

The state at a rollout's first step is of older weights than those that learn from it. So the slot
also holds the K steps before, and the learner walks through them with its own (R2D2: Kapturowski et
al. 2019, section 3). Used by collectors, which keep the steps, and by the learner.
"""

from collections import deque
from collections.abc import Mapping

import torch

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.models.policy import Policy, Sequences, State, restarted

PAST = "past/"
OBS = f"{PAST}obs/"  # and the group: [B, K, ...], the oldest first
STATE = f"{PAST}state/"  # and the part: [B, ...] before the first of the steps, as acted with
ENDED = f"{PAST}ended"  # [B, K] whether an episode ended with the step
KNOWN = f"{PAST}known"  # [B] whether there are such steps: none before an env's first rollout


def no_past(policy: Policy, spec: EnvSpec, num_envs: int) -> State:
    """Return the past of envs that have none, name -> [B, ...]; empty without burn-in."""
    K, device = policy.burn_in, policy.flat.device
    if not K:
        return {}
    as_stored = {**spec.obs, **policy.images}
    read = {group for group in (*policy.actor_groups, *policy.critic_groups) if group in as_stored}
    states = {**policy.initial_state(num_envs), **policy.initial_critic_state(num_envs)}

    def zeros(*shape: int, dtype: torch.dtype = torch.bool) -> torch.Tensor:
        return torch.zeros(num_envs, *shape, dtype=dtype, device=device)

    return {
        **{
            f"{OBS}{g}": zeros(K, *as_stored[g].shape, dtype=getattr(torch, as_stored[g].dtype))
            for g in sorted(read)
        },
        **{f"{STATE}{name}": x for name, x in states.items()},
        ENDED: zeros(K),
        KNOWN: zeros(),
    }


def past_of(
    fresh: State, obs: Mapping[str, torch.Tensor], ended_KB: torch.Tensor, state: State
) -> State:
    """Return the past that K steps are for the rollout after them, all of it copied.

    Args:
        fresh: `no_past` of these envs.
        obs: Group -> [K, B, ...].
        ended_KB: Whether an episode ended with the step.
        state: Before the first of them, actor's and critic's.
    """
    found = {KNOWN: torch.ones_like(fresh[KNOWN]), ENDED: ended_KB.transpose(0, 1)}
    for name in fresh:
        if name.startswith(OBS):
            found[name] = obs[name.removeprefix(OBS)].transpose(0, 1)
        elif name.startswith(STATE):
            found[name] = state[name.removeprefix(STATE)]
    return {name: x.clone(memory_format=torch.contiguous_format) for name, x in found.items()}


@torch.no_grad()
def remembered_after(policy: Policy, past: State) -> State:
    """Return what the policy's present weights remember after the past, actor and critic."""
    ended_BK = past[ENDED]
    B, K = ended_BK.shape
    before = {k.removeprefix(STATE): x for k, x in past.items() if k.startswith(STATE)}
    obs = {k.removeprefix(OBS): x for k, x in past.items() if k.startswith(OBS)}
    fresh, fresh_critic = policy.initial_state(B), policy.initial_critic_state(B)
    state: State = {name: before[name] for name in fresh}
    for k, ended_B in enumerate(ended_BK.unbind(1)):
        seen = {group: x[:, k] for group, x in obs.items() if group in policy.actor_groups}
        state = restarted(policy.act(seen, state, None).state, fresh, ended_B)
    if not fresh_critic:
        return state
    ended_KB = ended_BK.transpose(0, 1)
    starts_KB = torch.cat([torch.zeros_like(ended_KB[:1]), ended_KB[:-1]])
    samples = {g: obs[g].transpose(0, 1).flatten(0, 1) for g in policy.critic_groups}
    columns = Sequences({name: before[name] for name in fresh_critic}, starts_KB)
    last = deque(policy.critic_states(samples, columns), maxlen=1)[0]
    return {**state, **restarted(last, fresh_critic, ended_KB[-1])}
