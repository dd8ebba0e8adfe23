"""The PPO losses of one minibatch, the actor's and the critic's. Pure; on the learner's device.

The two networks share no parameter, so the losses are two functions, and their gradients may be
computed side by side.
"""

from dataclasses import dataclass

import torch

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.models.distributions import ActionDistribution


@dataclass
class ActorSamples:
    """What the actor's loss reads of M samples, besides what the current actor makes of them.

    Mirrored copies (`symmetry.py`) follow the originals in what has no P in its shape.

    Attributes:
        action_MA: As sampled, before squashing.
        advantage_M: Normalised.
        proximal_params_MP: Distribution parameters at the start of the iteration.
        proximal_log_prob_M: Log-prob of the action under them.
        weight_M: Truncated proximal/behaviour.
        entropy_noise_MP: For sampled entropies; None where they have a closed form.
    """

    action_MA: torch.Tensor
    advantage_M: torch.Tensor
    proximal_params_MP: torch.Tensor
    proximal_log_prob_M: torch.Tensor
    weight_M: torch.Tensor
    entropy_noise_MP: torch.Tensor | None

    def take(self, rows: torch.Tensor) -> "ActorSamples":
        """Return the samples of these indices."""
        noise = self.entropy_noise_MP
        return ActorSamples(
            self.action_MA[rows],
            self.advantage_M[rows],
            self.proximal_params_MP[rows],
            self.proximal_log_prob_M[rows],
            self.weight_M[rows],
            None if noise is None else noise[rows],
        )


@dataclass
class CriticSamples:
    """What the critic's loss reads of M samples, besides what the current critic makes of them.

    Attributes:
        target_M: Value targets, as the critic predicts them (normalised if it does).
        proximal_value_M: The critic's output at the start of the iteration.
    """

    target_M: torch.Tensor
    proximal_value_M: torch.Tensor

    def take(self, rows: torch.Tensor) -> "CriticSamples":
        """Return the samples of these indices."""
        return CriticSamples(self.target_M[rows], self.proximal_value_M[rows])


@dataclass
class ActorLoss:
    """Scalars of one minibatch, on the device; `total` carries the gradient."""

    total: torch.Tensor
    surrogate: torch.Tensor
    entropy: torch.Tensor
    kl: torch.Tensor
    clip_fraction: torch.Tensor


def actor_loss(
    config: PPOConfig,
    distribution: ActionDistribution,
    batch: ActorSamples,
    params_MP: torch.Tensor,
) -> ActorLoss:
    """Return the decoupled PPO loss (Hilton et al. 2022, eq. 2), averaged over the minibatch.

    Ratio, clipping and KL are against the proximal policy; `weight_M` corrects for the older
    behaviour policy. With no lag the weight is 1 and this is PPO (Schulman et al. 2017, eq. 7).

    Args:
        config: clip, entropy_coef.
        distribution: Interprets the parameters.
        batch: The fixed part.
        params_MP: Distribution parameters under the current actor.
    """
    log_ratio_M = distribution.log_prob(params_MP, batch.action_MA) - batch.proximal_log_prob_M
    ratio_M = log_ratio_M.exp()
    clipped_M = ratio_M.clamp(1.0 - config.clip, 1.0 + config.clip)
    gain_M = torch.minimum(ratio_M * batch.advantage_M, clipped_M * batch.advantage_M)
    surrogate = -(batch.weight_M * gain_M).mean()
    original_MP = params_MP[: batch.proximal_params_MP.shape[0]]
    entropy = distribution.entropy(original_MP, batch.entropy_noise_MP).mean()
    total = surrogate - config.entropy_coef * entropy
    with torch.no_grad():
        kl = distribution.kl(batch.proximal_params_MP, original_MP).mean()
        clip_fraction = ((ratio_M - 1.0).abs() > config.clip).to(torch.float32).mean()
    return ActorLoss(total, surrogate.detach(), entropy.detach(), kl, clip_fraction)


def critic_loss(config: PPOConfig, batch: CriticSamples, value_M: torch.Tensor) -> torch.Tensor:
    """Return the mean squared value error, clipped as in PPO2 where `value_clip` is set.

    Args:
        config: value_clip.
        batch: The fixed part.
        value_M: Output of the current critic.
    """
    error_M = (value_M - batch.target_M).square()
    if config.value_clip is not None:
        move_M = (value_M - batch.proximal_value_M).clamp(-config.value_clip, config.value_clip)
        clipped_error_M = (batch.proximal_value_M + move_M - batch.target_M).square()
        error_M = torch.maximum(error_M, clipped_error_M)
    return error_M.mean()
