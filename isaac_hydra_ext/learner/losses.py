"""The PPO loss of one minibatch. Pure functions; run on the learner's device."""

from dataclasses import dataclass
from typing import Any

import torch

from isaac_hydra_ext.config import PPOConfig
from isaac_hydra_ext.models.distributions import ActionDistribution


@dataclass
class Minibatch:
    """What the loss reads of M samples, besides what the current networks make of them.

    Attributes:
        action_MA: As sampled, before squashing.
        advantage_M: Normalised.
        target_M: Value targets, as the critic predicts them (normalised if it does).
        proximal_params_MP: Distribution parameters at the start of the iteration.
        proximal_log_prob_M: Log-prob of the action under them.
        proximal_value_M: The critic's output at the start of the iteration.
        weight_M: Truncated proximal/behaviour.
        entropy_noise_MP: For sampled entropies; None where they have a closed form.
    """

    action_MA: torch.Tensor
    advantage_M: torch.Tensor
    target_M: torch.Tensor
    proximal_params_MP: torch.Tensor
    proximal_log_prob_M: torch.Tensor
    proximal_value_M: torch.Tensor
    weight_M: torch.Tensor
    entropy_noise_MP: torch.Tensor | None

    def take(self, rows: torch.Tensor) -> "Minibatch":
        """Return the samples of these indices."""
        taken: dict[str, Any] = {k: None if v is None else v[rows] for k, v in vars(self).items()}
        return Minibatch(**taken)


@dataclass
class Loss:
    """Scalars of one minibatch, on the device; `total` carries the gradient."""

    total: torch.Tensor
    surrogate: torch.Tensor
    value: torch.Tensor
    entropy: torch.Tensor
    kl: torch.Tensor
    clip_fraction: torch.Tensor


def ppo_loss(
    config: PPOConfig,
    distribution: ActionDistribution,
    batch: Minibatch,
    params_MP: torch.Tensor,
    value_M: torch.Tensor,
) -> Loss:
    """Return the decoupled PPO loss (Hilton et al. 2022, eq. 2), averaged over the minibatch.

    Ratio, clipping and KL are against the proximal policy; `weight_M` corrects for the older
    behaviour policy. With no lag the weight is 1 and this is PPO (Schulman et al. 2017, eq. 7).

    Args:
        config: clip, value_clip, entropy_coef, value_coef.
        distribution: Interprets the parameters.
        batch: The fixed part.
        params_MP: Distribution parameters under the current actor.
        value_M: Output of the current critic.
    """
    log_ratio_M = distribution.log_prob(params_MP, batch.action_MA) - batch.proximal_log_prob_M
    ratio_M = log_ratio_M.exp()
    clipped_M = ratio_M.clamp(1.0 - config.clip, 1.0 + config.clip)
    gain_M = torch.minimum(ratio_M * batch.advantage_M, clipped_M * batch.advantage_M)
    surrogate = -(batch.weight_M * gain_M).mean()

    value_error_M = (value_M - batch.target_M).square()
    if config.value_clip is not None:
        move_M = (value_M - batch.proximal_value_M).clamp(-config.value_clip, config.value_clip)
        clipped_error_M = (batch.proximal_value_M + move_M - batch.target_M).square()
        value_error_M = torch.maximum(value_error_M, clipped_error_M)
    value = value_error_M.mean()

    entropy = distribution.entropy(params_MP, batch.entropy_noise_MP).mean()
    total = surrogate + config.value_coef * value - config.entropy_coef * entropy
    with torch.no_grad():
        kl = distribution.kl(batch.proximal_params_MP, params_MP).mean()
        clip_fraction = ((ratio_M - 1.0).abs() > config.clip).to(torch.float32).mean()
    return Loss(total, surrogate.detach(), value.detach(), entropy.detach(), kl, clip_fraction)
