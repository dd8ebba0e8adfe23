"""What a memory holds where a rollout begins, by the weights that learn: `rollout.burn_in`.

Runs in the learner's process, first in an update; device tensors of shapes that stay the same.
"""

import torch

from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.learner.ppo.precision import matrix_products
from isaac_hydra_ext.models.past import KNOWN, remembered_after
from isaac_hydra_ext.models.policy import Policy


def burn_in(policy: Policy, batch: RolloutBatch, precision: str) -> None:
    """Write the state before the first step anew, for envs that have a past; without gradient.

    Once an update, not once a minibatch as in R2D2: the proximal policy, the values and every
    minibatch then begin with the same state, so that the first ratio is 1. The weights move less
    within an update than `ppo.clip` and the KL allow; what is undone is that of earlier updates.

    Args:
        policy: The networks before the first minibatch step.
        batch: The iteration's rollouts; its `state` is changed.
        precision: `ppo.precision`.
    """
    if not batch.past:
        return
    with matrix_products("tf32" if precision == "bf16" else precision, batch.device):
        after = remembered_after(policy, batch.past)
    known_N = batch.past[KNOWN]
    for name, state in batch.state.items():
        known = known_N.view(-1, *[1] * (state.dim() - 1))
        state.copy_(torch.where(known, after[name], state))
