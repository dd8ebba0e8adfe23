"""Adam over the policy's one flat vector, with everything that decides about a step on the device.

Runs in the learner's process. Learning rate, gradient clipping and the flag that turns steps into
nothing are device tensors, in eager mode and in a CUDA graph alike: the host is never asked.
"""

from collections.abc import Mapping, Sequence

import torch

from isaac_hydra_ext.config.schema import PPOConfig
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.system.compiler import fused

LR_RANGE = (1e-5, 1e-2)  # of the adaptive schedule, rsl_rl's
CLIP_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, as everywhere
# Of weights, learning rate and moments.
Copies = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


class FlatAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) over all parameters as one vector.

    Written out, and not torch's: compiled, it is one kernel with the clipping, of the whole GPU
    (torch's gives one vector of 400,000 to seven of 132 processors). The actor's gradient and
    the critic's are clipped apart, as in rsl_rl 5: a large value error must not shrink the
    actor's step.

    Attributes:
        lr: 0-dim, on the device.
        stop: 1 once a minibatch of this update must not step, 0 before; parameters, moments and
            the step count then keep every bit.
        bad: 1 once a loss or gradient of this update was not finite.
    """

    def __init__(self, ppo: PPOConfig, policy: ActorCritic, compiled: bool) -> None:
        """Begin with no moments.

        Args:
            ppo: lr, lr_schedule, desired_kl, stop_kl and max_grad_norm are read.
            policy: Its `flat` is optimised in place.
            compiled: Fuse kernels with torch.compile.
        """
        self._ppo, self._policy = ppo, policy
        device = policy.flat.device
        self._parameters = policy.flat[: policy.num_params]
        self._gradient = torch.zeros_like(self._parameters)
        self.lr = torch.tensor(ppo.lr, device=device)
        self.stop, self.bad = torch.zeros((), device=device), torch.zeros((), device=device)
        self._moments = {
            "step": torch.zeros((), device=device),
            "exp_avg": torch.zeros_like(self._parameters),
            "exp_avg_sq": torch.zeros_like(self._parameters),
        }
        self._decide_and_step = fused(self._decided_step, compiled)

    def begin(self) -> None:
        """Start an update: nothing has gone wrong yet."""
        self.stop.zero_()
        self.bad.zero_()

    def step(
        self, gradients: Sequence[torch.Tensor], losses: Sequence[torch.Tensor], kl: torch.Tensor
    ) -> torch.Tensor:
        """Take one step, or none if `stop` is set or becomes set.

        Args:
            gradients: Of all parameters, in the policy's order.
            losses: That they come from; one that is not finite stops the update.
            kl: Of the minibatch; decides about the learning rate, and an early stop.

        Returns:
            Gradient norms before clipping, of actor and critic, [2].
        """
        torch.cat([gradient.reshape(-1) for gradient in gradients], out=self._gradient)
        norms = self._decide_and_step(
            self._gradient, torch.stack([*losses]), kl, self._parameters, **self._moments
        )
        self._policy.keep_std_positive()
        return norms

    def _decided_step(
        self,
        gradient: torch.Tensor,
        losses: torch.Tensor,
        kl: torch.Tensor,
        parameters: torch.Tensor,
        step: torch.Tensor,
        exp_avg: torch.Tensor,
        exp_avg_sq: torch.Tensor,
    ) -> torch.Tensor:
        """Clip, decide and step, all in place; returns the gradients' norms, [2].

        `gradient`, `parameters` and both moments are [P], `losses` [2], `kl` and `step` 0-dim.
        """
        ppo, actor, lr, stop = self._ppo, self._policy.num_actor_params, self.lr, self.stop
        norms = torch.stack([gradient[:actor].norm(), gradient[actor:].norm()])
        finite = torch.isfinite(losses).all() & torch.isfinite(norms).all()
        self.bad.copy_(torch.maximum(self.bad, 1.0 - finite.float()))
        stopped = torch.maximum(stop, self.bad)
        if ppo.stop_kl is not None:
            stopped = torch.maximum(stopped, (kl > ppo.stop_kl).float())
        stop.copy_(stopped)
        steps = stopped == 0
        if ppo.lr_schedule == "adaptive":
            lr.copy_(torch.where(steps, adapted(lr, kl, ppo.desired_kl), lr))
        scales = (ppo.max_grad_norm / (norms + CLIP_EPSILON)).clamp(max=1.0)
        gradient[:actor].mul_(scales[0])
        gradient[actor:].mul_(scales[1])

        step.add_(steps)
        # A decay of 1 keeps a moment to the last bit, as 0 times a gradient that is finite does.
        taken = torch.where(steps, gradient, 0.0)
        decay_1, decay_2 = torch.where(steps, BETA_1, 1.0), torch.where(steps, BETA_2, 1.0)
        exp_avg.mul_(decay_1).add_(taken * (1.0 - BETA_1))
        exp_avg_sq.mul_(decay_2).add_(taken.square() * (1.0 - BETA_2))
        count = step.clamp(min=1.0)
        rate = torch.where(steps, lr / (1.0 - BETA_1**count), 0.0)
        root = (exp_avg_sq / (1.0 - BETA_2**count)).sqrt_().add_(EPSILON)
        parameters.sub_(rate * exp_avg / root)
        return norms

    def copy_state(self) -> Copies:
        """Copy what steps change: weights, learning rate, moments."""
        moments = {name: value.clone() for name, value in self._moments.items()}
        return self._policy.flat.clone(), self.lr.clone(), moments

    def restore(self, before: Copies) -> None:
        """Go back to `copy_state`'s copy."""
        flat, lr, moments = before
        self._policy.flat.copy_(flat)
        self.lr.copy_(lr)
        for name, value in moments.items():
            self._moments[name].copy_(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the moments and the learning rate, as named tensors."""
        return {**{f"optimizer.{k}": v for k, v in self._moments.items()}, "lr": self.lr}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore `state_dict`'s tensors in place; moments that are not there stay as they are."""
        for name, moment in self._moments.items():
            if (saved := state.get(f"optimizer.{name}")) is not None:
                moment.copy_(saved)
        self.lr.copy_(state["lr"])


def adapted(lr: torch.Tensor, kl: torch.Tensor, desired_kl: float) -> torch.Tensor:
    """rsl_rl's rule: a third down above twice the desired KL, half up below half of it."""
    lower = torch.clamp(lr / 1.5, min=LR_RANGE[0])
    higher = torch.clamp(lr * 1.5, max=LR_RANGE[1])
    up = (kl < 0.5 * desired_kl) & (kl > 0.0)
    return torch.where(kl > 2.0 * desired_kl, lower, torch.where(up, higher, lr))
