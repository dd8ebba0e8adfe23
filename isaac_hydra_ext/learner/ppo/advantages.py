"""Advantages and value targets over [T, N]. Run on the learner's device.

Time runs along the first dimension; `next_value_TN[t]` is what step t bootstraps from: V of the
next observation, V of the final observation where the episode was cut off there, 0 where the
task ended it.
"""

import torch

from isaac_hydra_ext.learner.group import Group, combined
from isaac_hydra_ext.learner.ppo.scan import reverse_scan


def next_values(
    value_T1N: torch.Tensor,
    terminated_TN: torch.Tensor,
    truncated_TN: torch.Tensor,
    final_value_TN: torch.Tensor,
    finite_horizon: bool,
) -> torch.Tensor:
    """Return what each step bootstraps from, [T, N].

    Args:
        value_T1N: V of the T observations acted on and of the one after, [T + 1, N].
        terminated_TN: The task ended the episode: nothing follows. Wins over `truncated_TN`.
        truncated_TN: The episode was cut off: V of its final observation follows.
        final_value_TN: V(final_obs) where known, else V(s_t); read where truncated only.
        finite_horizon: Truncation belongs to the task: nothing follows it either.
    """
    following = torch.where(truncated_TN, final_value_TN, value_T1N[1:])
    ended = terminated_TN | truncated_TN if finite_horizon else terminated_TN
    return following.masked_fill(ended, 0.0)


def gae(
    reward_TN: torch.Tensor,
    value_TN: torch.Tensor,
    next_value_TN: torch.Tensor,
    done_TN: torch.Tensor,
    gamma: float,
    lam: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized Advantage Estimation (Schulman et al. 2016, eq. 16).

    Args:
        reward_TN: Raw rewards.
        value_TN: V of the observations acted on.
        next_value_TN: From `next_values`.
        done_TN: terminated or truncated; the sum stops there.
        gamma: Discount per step.
        lam: Lambda.

    Returns:
        Advantages and value targets (their sum with the values), [T, N] each.
    """
    delta_TN = reward_TN + gamma * next_value_TN - value_TN
    decay_TN = gamma * lam * (~done_TN).to(delta_TN.dtype)
    advantage_TN = reverse_scan(delta_TN, decay_TN)
    return advantage_TN, advantage_TN + value_TN


def vtrace(
    reward_TN: torch.Tensor,
    value_TN: torch.Tensor,
    next_value_TN: torch.Tensor,
    done_TN: torch.Tensor,
    rho_TN: torch.Tensor,
    gamma: float,
    lam: float,
    rho_bar: float,
    c_bar: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """V-trace (Espeholt et al. 2018, eq. 1) for a decoupled policy loss.

    With rho = proximal / behaviour and c = lam * min(c_bar, rho):
    v_t = V_t + min(rho_bar, rho) delta_t + gamma c_t (v_{t+1} - V_{t+1}) and
    A_t = delta_t + gamma lam (v_{t+1} - V_{t+1}). A has no leading rho: the loss weighs each
    sample by proximal/behaviour already. With rho = 1 this is GAE.

    Args:
        reward_TN: As in `gae`.
        value_TN: As in `gae`.
        next_value_TN: As in `gae`.
        done_TN: As in `gae`.
        rho_TN: Importance weights proximal/behaviour, untruncated.
        gamma: As in `gae`.
        lam: As in `gae`.
        rho_bar: Truncation of rho before delta.
        c_bar: Truncation of rho in the trace.

    Returns:
        Advantages and value targets v, [T, N] each.
    """
    delta_TN = reward_TN + gamma * next_value_TN - value_TN
    rho_clipped_TN = rho_TN.clamp(max=rho_bar)
    c_TN = lam * rho_TN.clamp(max=c_bar)
    on_TN = gamma * (~done_TN).to(delta_TN.dtype)
    gap_TN = reverse_scan(rho_clipped_TN * delta_TN, on_TN * c_TN)  # v_t - V_t
    next_gap_TN = torch.cat([gap_TN[1:], torch.zeros_like(gap_TN[:1])])
    return delta_TN + on_TN * lam * next_gap_TN, value_TN + gap_TN


def normalized(advantage_M: torch.Tensor, group: Group) -> torch.Tensor:
    """Return advantages of mean 0 and std 1 over the samples of all ranks."""
    if not (rows := advantage_M.shape[0]):  # the other ranks count on this one's call
        combined(group, 0, advantage_M.new_zeros(()), advantage_M.new_zeros(()))
        return advantage_M
    # `std` and not `var`: alone, the square's root is it again, to the last bit.
    mean, var = advantage_M.mean(), advantage_M.std(correction=0).square()
    _, mean, var = combined(group, rows, mean, var)
    return (advantage_M - mean) / (var.sqrt() + 1e-8)
