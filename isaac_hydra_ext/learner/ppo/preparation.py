"""What an update is computed from, once an iteration: proximal policy, values, advantages.

Runs in the learner's process, on its device, before the first minibatch; device tensors alone, of
shapes that stay the same, so that it can be part of a CUDA graph.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.ppo.advantages import gae, next_values, normalized, vtrace
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.learner.ppo.images import Rows
from isaac_hydra_ext.learner.ppo.losses import ActorSamples, CriticSamples
from isaac_hydra_ext.learner.ppo.precision import matrix_products
from isaac_hydra_ext.models.policy import Policy, Samples, Sequences

CHUNK_ROWS = 98_304  # enough for any GPU to be busy
CHUNK_BYTES = 512 * 2**20  # of pictures as float32, likewise
Network = Callable[[Samples, Sequences | None], torch.Tensor]


@dataclass
class Prepared:
    """The fixed part of an update, of all N = T * W * B samples.

    Attributes:
        actor: For the actor's loss.
        critic: For the critic's.
        target_N: Value targets in units of return, for the value normaliser.
        diagnostics: Scalars by metric tag, on the device.
    """

    actor: ActorSamples
    critic: CriticSamples
    target_N: torch.Tensor
    diagnostics: dict[str, torch.Tensor]


@torch.no_grad()
def prepare(
    ppo: PPOConfig,
    spec: EnvSpec,
    policy: Policy,
    batch: RolloutBatch,
    entropy_noise_NP: torch.Tensor | None,
    group: Group,
) -> Prepared:
    """Evaluate the proximal policy, the critic and the advantages on the whole batch.

    The proximal policy is evaluated in the precision of the minibatches, so that their first ratio
    is 1. Values are not in bf16: advantages are differences of neighbouring values, which its 8
    bits would drown.

    Args:
        ppo: Of the run.
        spec: Of one worker's env.
        policy: The networks before the first minibatch step.
        batch: The iteration's rollouts.
        entropy_noise_NP: For sampled entropies.
        group: The ranks over which advantages are normalised.
    """
    distribution = policy.distribution
    T, N = batch.reward_TN.shape
    with matrix_products(ppo.precision, batch.device):
        samples = batch.samples_N
        groups = {group: samples[group] for group in policy.actor_groups}
        params = _in_chunks(policy.action_params, groups, T * N, batch, ppo, batch.sequences(T))
    action_NA = batch.action_TNA.flatten(0, 1)
    proximal_log_prob = distribution.log_prob(params, action_NA)
    rho = (proximal_log_prob - batch.behavior_log_prob_TN.flatten()).exp()
    weight = rho.clamp(max=ppo.max_importance_weight)

    raw_value_T1N, value_T1N, final_value_TN = _values(policy, batch, ppo)
    next_value_TN = next_values(
        value_T1N, batch.terminated_TN, batch.truncated_TN, final_value_TN, spec.finite_horizon
    )
    advantage, target = _advantages(ppo, batch, value_T1N[:-1], next_value_TN, rho.view(T, N))
    unexplained = (target - value_T1N[:-1].flatten()).var(correction=0)
    diagnostics = {
        "Async/effective_sample_size": weight.sum().square() / weight.square().sum() / (T * N),
        "Async/truncated_weights": (rho > ppo.max_importance_weight).float().mean(),
        # The largest |proximal / behaviour - 1|: rounding at lag 0, the policies' distance above.
        "Async/ratio_deviation": (rho - 1.0).abs().max(),
        "Loss/explained_variance": 1.0 - unexplained / (target.var(correction=0) + 1e-8),
    }
    if ppo.normalize_advantages and not ppo.normalize_advantages_per_mini_batch:
        advantage = normalized(advantage, group)
    actor = ActorSamples(action_NA, advantage, params, proximal_log_prob, weight, entropy_noise_NP)
    critic = CriticSamples(policy.normalize_value(target), raw_value_T1N[:-1].flatten())
    return Prepared(actor, critic, target, diagnostics)


def _values(
    policy: Policy, batch: RolloutBatch, ppo: PPOConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the critic once over all T + 1 observations and the final ones.

    Returns:
        Its outputs [T + 1, N], the same in units of return, and [T, N] what stands for V of the
        final observation: V(s_t) wherever none is known.
    """
    T, N = batch.reward_TN.shape
    obs = {group: batch.all_obs(group) for group in policy.critic_groups}
    sequences, finals = batch.sequences(T + 1), batch.final_step.shape[0]
    parts: list[tuple[Mapping[str, Rows], int]] = [(obs, (T + 1) * N)]
    if finals and sequences is None:
        rows = {group: batch.finals(group) for group in obs}
        if any(group in batch.images for group in obs):
            parts.append((rows, finals))
        else:  # in one pass
            rows = {g: torch.cat([batch.obs[g].flatten(0, 1), rows[g]]) for g in obs}
            parts = [(rows, (T + 1) * N + finals)]
    with matrix_products("tf32" if ppo.precision == "bf16" else ppo.precision, batch.device):
        raws = [_in_chunks(policy.raw_value, *part, batch, ppo, sequences) for part in parts]
        if finals and sequences is not None:
            raws.append(_final_values(policy, batch, sequences))
    raw_value = raws[0] if len(raws) == 1 else torch.cat(raws)
    raw_value_T1N = raw_value[: (T + 1) * N].view(T + 1, N)
    value_T1N = policy.denormalize_value(raw_value_T1N)
    final_value_TN = value_T1N[:-1]
    if batch.final_step.shape[0]:
        # One element more than there are steps: where rows that hold nothing go.
        final_value = value_T1N[:-1].new_empty(T * N + 1)
        final_value[:-1] = final_value_TN.flatten()
        final_value[batch.final_step] = policy.denormalize_value(raw_value[(T + 1) * N :])
        final_value_TN = final_value[:-1].view(T, N)
    return raw_value_T1N, value_T1N, final_value_TN


def _final_values(policy: Policy, batch: RolloutBatch, sequences: Sequences) -> torch.Tensor:
    """Return the critic's output [F] for final observations, as what ends is remembered there."""
    T, N = batch.reward_TN.shape
    # Read step by step, by slices, as a tensor would be.
    samples = cast("Samples", {group: batch.all_obs(group) for group in policy.critic_groups})
    first_T = Sequences(sequences.state, sequences.starts_TC[:T])
    states = list(policy.critic_states(samples, first_T))
    steps_F = batch.final_step.clamp(max=T * N - 1)  # rows that hold nothing are after the last
    reached = {
        name: torch.stack([state[name] for state in states]).flatten(0, 1)[steps_F]
        for name in states[0]
    }
    finals = {group: batch.final_obs[group] for group in policy.critic_groups}
    none_1F = torch.zeros_like(steps_F, dtype=torch.bool).unsqueeze(0)
    return policy.raw_value(finals, Sequences(reached, none_1F)).float()


def _advantages(
    ppo: PPOConfig,
    batch: RolloutBatch,
    value_TN: torch.Tensor,
    next_value_TN: torch.Tensor,
    rho_TN: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and value targets, [T * N] each, by the estimator that was chosen."""
    done_TN = batch.terminated_TN | batch.truncated_TN
    series = (batch.reward_TN, value_TN, next_value_TN, done_TN)
    if ppo.advantages == "vtrace":
        advantage_TN, target_TN = vtrace(
            *series, rho_TN, ppo.gamma, ppo.lam, ppo.rho_bar, ppo.c_bar
        )
    else:
        advantage_TN, target_TN = gae(*series, ppo.gamma, ppo.lam)
    return advantage_TN.flatten(), target_TN.flatten()


def _in_chunks(
    network: Network,
    obs: Mapping[str, Rows],
    count: int,
    batch: RolloutBatch,
    ppo: PPOConfig,
    sequences: Sequences | None,
) -> torch.Tensor:
    """Evaluate a network on many rows, four minibatches at a time, or fewer if they are large.

    The activations of all rows of a large iteration would be the most that an update needs.
    """
    size = min(4 * ppo.batch_size, max(ppo.batch_size, CHUNK_ROWS))
    picture = sum(images.nbytes for group, images in batch.images.items() if group in obs)
    size = min(size, max(1, CHUNK_BYTES // picture)) if picture else size
    if sequences is not None:
        return _in_columns(network, obs, max(1, round(count / size)), sequences)
    parts = [
        network(
            {group: x[start : min(start + size, count)] for group, x in obs.items()}, None
        ).float()
        for start in range(0, count, size)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _in_columns(
    network: Network, obs: Mapping[str, Rows], chunks: int, sequences: Sequences
) -> torch.Tensor:
    """Evaluate a network on whole columns, the same number of them in each chunk."""
    T, N = sequences.starts_TC.shape
    device = sequences.starts_TC.device
    columns = torch.arange(N, device=device).tensor_split(min(chunks, N))
    if len(columns) == 1:
        return network({group: x[0 : T * N] for group, x in obs.items()}, sequences).float()
    firsts_T1 = torch.arange(0, T * N, N, device=device).unsqueeze(1)
    parts = [
        network(
            {group: x[(firsts_T1 + taken).flatten()] for group, x in obs.items()},
            sequences.take(taken),
        ).float().unflatten(0, (T, -1))
        for taken in columns
    ]  # fmt: skip
    return torch.cat(parts, dim=1).flatten(0, 1)
