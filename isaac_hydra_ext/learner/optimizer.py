"""Steps on the policy's one flat vector, with everything that decides about them on the device.

Runs in the learner's process. Learning rate, gradient clipping and the flag that turns steps into
nothing are device tensors, in eager mode and in a CUDA graph alike: the host is never asked.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.learner.adam import adam_on_host_
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.rules import RULES
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.system.compiler import fused

LR_RANGE = (1e-5, 1e-2)  # of the adaptive schedule, rsl_rl's; a start outside it widens it
CLIP_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


class FlatOptimizer:
    """`ppo.optimizer` over all parameters of a policy as one vector.

    The gradient of each of the policy's parameter groups is clipped by itself, as in rsl_rl 5: a
    large value error must not shrink the actor's step.

    Attributes:
        lr: 0-dim, on the device.
        stop: 1 once a minibatch of this update must not step, 0 before; parameters, moments and
            the step count then keep every bit.
        bad: 1 once a loss or gradient of this update was non-finite.
    """

    def __init__(self, ppo: PPOConfig, policy: Policy, group: Group, compiled: bool) -> None:
        """Begin with no moments.

        Args:
            ppo: optimizer, lr, lr_schedule, desired_kl, stop_kl and max_grad_norm are read.
            policy: Its `flat` is optimised in place.
            group: Whose mean gradient is stepped on.
            compiled: Fuse kernels with torch.compile.
        """
        self._ppo, self._policy, self._group = ppo, policy, group
        device = policy.flat.device
        self._parameters = policy.flat[: policy.num_params]
        self._sizes = [sum(p.numel() for p in ps) for ps in policy.parameter_groups().values()]
        self._reduced = torch.zeros(0, device=device)  # gradient, KL and losses, side by side
        self.lr = torch.tensor(ppo.lr, device=device)
        self.stop, self.bad = torch.zeros((), device=device), torch.zeros((), device=device)
        self._lr_range = min(LR_RANGE[0], ppo.lr), max(LR_RANGE[1], ppo.lr)
        self._rule = RULES[ppo.optimizer]
        self._moments = self._rule.begin(self._parameters)
        on_host = device.type == "cpu" and not compiled and ppo.optimizer == "adam"
        self._decide_and_step = (
            self._decided_on_host if on_host else fused(self._decided_step, compiled)
        )

    def begin(self) -> None:
        """Start an update: nothing has gone wrong yet."""
        self.stop.zero_()
        self.bad.zero_()

    def step(
        self,
        gradients: Sequence[torch.Tensor],
        losses: Sequence[torch.Tensor],
        kl: torch.Tensor,
        rows: int,
    ) -> torch.Tensor:
        """Take one step, or none if `stop` is set or becomes set.

        Args:
            gradients: Of all parameters, in the policy's order.
            losses: That they come from, 0-dim; a non-finite one stops the update.
            kl: Of the minibatch; decides about the learning rate, and an early stop.
            rows: Samples in the minibatch.

        Returns:
            The gradient's norm before clipping, for each of the policy's parameter groups.
        """
        num_params = self._parameters.shape[0]
        size = num_params + 1 + len(losses)
        if self._reduced.shape[0] != size:  # once: the number of losses stays the same
            self._reduced = torch.zeros(size, device=self._parameters.device)
        torch.cat([x.reshape(-1) for x in (*gradients, kl, *losses)], out=self._reduced)
        self._group.mean_of_samples(self._reduced, rows)  # the one collective of a minibatch step
        norms = self._decide_and_step(
            self._reduced[:num_params],
            self._reduced[num_params + 1 :],
            self._reduced[num_params],
            self._parameters,
            **self._moments,
        )
        self._policy.after_step()
        return norms

    def _decided_step(
        self,
        gradient: torch.Tensor,
        losses: torch.Tensor,
        kl: torch.Tensor,
        parameters: torch.Tensor,
        **moments: torch.Tensor,
    ) -> torch.Tensor:
        """Clip, decide and step, all in place; returns the gradients' norms, one a group.

        `gradient` and `parameters` are [P], `losses` [K], `kl` 0-dim.
        """
        ppo, lr, stop = self._ppo, self.lr, self.stop
        groups = gradient.split(self._sizes)
        norms = torch.stack([part.norm() for part in groups])
        finite = torch.isfinite(losses).all() & torch.isfinite(norms).all()
        self.bad.copy_(torch.maximum(self.bad, 1.0 - finite.float()))
        stopped = torch.maximum(stop, self.bad)
        if ppo.stop_kl is not None:
            stopped = torch.maximum(stopped, (kl > ppo.stop_kl).float())
        stop.copy_(stopped)
        steps = stopped == 0
        if ppo.lr_schedule == "adaptive":
            moved = adapted(lr, kl, ppo.desired_kl, *self._lr_range)
            lr.copy_(torch.where(steps, moved, lr))
        scales = (ppo.max_grad_norm / (norms + CLIP_EPSILON)).clamp(max=1.0)
        for part, scale in zip(groups, scales.unbind(), strict=True):
            part.mul_(scale)
        self._rule.step_(parameters, gradient, lr, steps, **moments)
        return norms

    def _decided_on_host(
        self,
        gradient: torch.Tensor,
        losses: torch.Tensor,
        kl: torch.Tensor,
        parameters: torch.Tensor,
        **moments: torch.Tensor,
    ) -> torch.Tensor:
        """Do as `_decided_step`, deciding in Python: on a CPU nobody waits for that."""
        ppo, groups = self._ppo, gradient.split(self._sizes)
        norms = torch.stack([torch.linalg.vector_norm(part) for part in groups])
        sizes, distance = norms.tolist(), kl.item()
        if not all(map(math.isfinite, [*losses.tolist(), *sizes])):
            self.bad.fill_(1.0)
            self.stop.fill_(1.0)
        if ppo.stop_kl is not None and distance > ppo.stop_kl:
            self.stop.fill_(1.0)
        if self.stop:
            return norms
        if ppo.lr_schedule == "adaptive":
            self.lr.fill_(
                adapted_on_host(self.lr.item(), distance, ppo.desired_kl, *self._lr_range)
            )
        for part, size in zip(groups, sizes, strict=True):
            if size + CLIP_EPSILON > ppo.max_grad_norm:
                part.mul_(ppo.max_grad_norm / (size + CLIP_EPSILON))
        adam_on_host_(parameters, gradient, self.lr.item(), **moments)
        return norms

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the moments and the learning rate, as named tensors; loading copies into them."""
        return {**{f"optimizer.{k}": v for k, v in self._moments.items()}, "lr": self.lr}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore `state_dict`'s tensors in place; moments that are not there stay as they are."""
        for name, tensor in self.state_dict().items():
            if (saved := state.get(name)) is not None:
                tensor.copy_(saved)


def adapted(
    lr: torch.Tensor, kl: torch.Tensor, desired_kl: float, lowest: float, highest: float
) -> torch.Tensor:
    """rsl_rl's rule: a third down above twice the desired KL, half up below half of it."""
    lower = torch.clamp(lr / 1.5, min=lowest)
    higher = torch.clamp(lr * 1.5, max=highest)
    up = (kl < 0.5 * desired_kl) & (kl > 0.0)
    return torch.where(kl > 2.0 * desired_kl, lower, torch.where(up, higher, lr))


def adapted_on_host(
    lr: float, kl: float, desired_kl: float, lowest: float, highest: float
) -> float:
    """Do as `adapted`, where numbers cost nothing to ask for."""
    if kl > 2.0 * desired_kl:
        return max(lr / 1.5, lowest)
    return min(lr * 1.5, highest) if 0.0 < kl < 0.5 * desired_kl else lr
