"""What an update is computed from, once an iteration: proximal policy, values, advantages.

Runs in the learner's process, on its device, before the first minibatch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from isaac_hydra_ext.config import PPOConfig, RunConfig
from isaac_hydra_ext.envs.vec_env import EnvSpec
from isaac_hydra_ext.learner.advantages import gae, next_values, vtrace
from isaac_hydra_ext.learner.batch import RolloutBatch
from isaac_hydra_ext.learner.losses import Minibatch
from isaac_hydra_ext.models.actor_critic import ActorCritic


@dataclass
class Prepared:
    """The fixed part of an update.

    Attributes:
        samples: All N = T * W * B of them, for the loss.
        target_N: Value targets in units of return, for the value normaliser.
        diagnostics: Scalars by metric tag, on the device.
    """

    samples: Minibatch
    target_N: torch.Tensor
    diagnostics: dict[str, torch.Tensor]


@torch.no_grad()
def prepare(
    config: RunConfig,
    spec: EnvSpec,
    policy: ActorCritic,
    batch: RolloutBatch,
    generator: torch.Generator,
) -> Prepared:
    """Evaluate the proximal policy, the critic and the advantages on the whole batch.

    Args:
        config: Of the run.
        spec: Of one worker's env.
        policy: The networks before the first minibatch step.
        batch: The iteration's rollouts.
        generator: Of the iteration; sampled entropies draw from it.
    """
    ppo, distribution = config.ppo, policy.distribution
    T, N = batch.reward_TN.shape
    params = _in_chunks(policy.action_params, batch.obs_N, ppo)
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
    if ppo.normalize_advantages:
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
    noise = None
    if config.policy.squash == "tanh" and spec.action.kind == "continuous":
        noise = distribution.draw_noise((T * N,), generator)
    samples = Minibatch(
        action_NA,
        advantage,
        policy.normalize_value(target),
        params,
        proximal_log_prob,
        raw_value_T1N[:-1].flatten(),
        weight,
        noise,
    )
    return Prepared(samples, target, diagnostics)


def _values(
    policy: ActorCritic, batch: RolloutBatch, ppo: PPOConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the critic once over all T + 1 observations and the final ones.

    Returns:
        Its outputs [T + 1, N], the same in units of return, and [T, N] what stands for V of the
        final observation: V(s_t) wherever none is known.
    """
    T, N = batch.reward_TN.shape
    rows = {group: obs.flatten(0, 1) for group, obs in batch.obs.items()}
    finals = batch.final_index.shape[0]
    if finals:
        rows = {group: torch.cat([obs, batch.final_obs[group]]) for group, obs in rows.items()}
    raw_value = _in_chunks(policy.raw_value, rows, ppo)
    raw_value_T1N = raw_value[: (T + 1) * N].view(T + 1, N)
    value_T1N = policy.denormalize_value(raw_value_T1N)
    final_value_TN = value_T1N[:-1].clone()
    if finals:
        at_t, at_n = batch.final_index.unbind(1)
        final_value_TN[at_t, at_n] = policy.denormalize_value(raw_value[(T + 1) * N :])
    return raw_value_T1N, value_T1N, final_value_TN


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


def _in_chunks(network: Any, obs: Mapping[str, torch.Tensor], ppo: PPOConfig) -> torch.Tensor:
    """Evaluate a network on many rows, at most four minibatches at a time."""
    rows = next(iter(obs.values())).shape[0]
    size = 4 * ppo.batch_size
    parts = [
        network({group: x[start : start + size] for group, x in obs.items()}).float()
        for start in range(0, rows, size)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
