"""Whether a run fits into this machine. Runs in the learner, before it starts and allocates."""

import math

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.envs.registry import facts_of
from isaac_hydra_ext.errors import ConfigError, SharedMemoryError
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.system.limits import available_memory

SPARSE = ("final_obs/", "final_index", "extra")  # reserved whole; only what is written costs memory


def check_processes(config: RunConfig) -> None:
    """Refuse more workers than can be there at all: a machine without memory answers nobody.

    Raises:
        ConfigError: Says what they take and what there is.
    """
    available, ranks = available_memory(), config.seat.local_size
    needed = ranks * config.num_workers * facts_of(config.env).process_bytes
    if available is not None and needed > available:
        raise ConfigError(
            f"rollout.num_workers={config.num_workers}{_each(ranks)}: the processes alone take "
            f"{needed / 2**30:,.1f} GiB, available are {available / 2**30:,.1f} GiB; lower it (a "
            "core can run one or two)"
        )


def check_memory(config: RunConfig, spec: EnvSpec, learner_on_cpu: bool) -> None:
    """Refuse rollouts that cannot fit: the kernel would kill somebody once they are written.

    Args:
        config: After `complete`.
        spec: Of one worker's env.
        learner_on_cpu: Its copy of the iteration's rollouts is then in the same memory.

    Raises:
        SharedMemoryError: Says what is needed, what there is, and which knobs to turn.
    """
    available, ranks = available_memory(), config.seat.local_size
    rollout = config.rollout
    layout = SlotLayout(spec, rollout.steps_per_env, torch.float32)
    dense = sum(f.nbytes for name, f in layout.fields.items() if not name.startswith(SPARSE))
    slots = config.num_collectors * (rollout.max_policy_lag + 1)
    needed = (slots + (config.num_collectors if learner_on_cpu else 0)) * dense
    needed, networks = ranks * needed, ranks * network_bytes(config, spec)
    # Each collector's copy, L + 1 versions, and the learner's with its gradient and two moments.
    copies = config.num_collectors + rollout.max_policy_lag + 1 + (4 if learner_on_cpu else 0)
    if available is not None and networks * copies > available:
        raise SharedMemoryError(
            f"{copies} copies of the networks{_each(ranks)} need "
            f"{networks * copies / 2**30:,.1f} GiB, available are {available / 2**30:,.1f} GiB; "
            "lower policy.hidden_dims or policy.critic_hidden_dims"
        )
    if available is None or needed <= available:
        return
    raise SharedMemoryError(
        f"the rollouts{_each(ranks)} need {needed / 2**30:,.1f} GiB, available are "
        f"{available / 2**30:,.1f} GiB: {slots} slots of {dense / 2**30:,.2f} GiB "
        f"(W = {config.num_collectors}, B = {spec.num_envs}, T = {rollout.steps_per_env}, "
        f"L = {rollout.max_policy_lag}); lower "
        "rollout.envs_per_worker, rollout.steps_per_env or rollout.num_workers"
    )


def _each(ranks: int) -> str:
    """Say that a number is of each rank, where this node has several."""
    return f" for each of {ranks} ranks" if ranks > 1 else ""


def network_bytes(config: RunConfig, spec: EnvSpec) -> int:
    """Return the size of actor and critic, with every obs group as input of both."""
    policy, inputs = config.policy, sum(math.prod(group.shape) for group in spec.obs.values())
    critic = policy.critic_hidden_dims or policy.hidden_dims
    weights = 0
    for dims in ([inputs, *policy.hidden_dims, spec.action.dim], [inputs, *critic, 1]):
        weights += sum(a * b for a, b in zip(dims, dims[1:], strict=False))
    return 4 * weights
