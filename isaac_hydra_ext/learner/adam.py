"""Adam over one flat vector.

Runs in the learner's process. Written out, and not torch's: compiled, it is one kernel of the whole
GPU (torch's gives one vector of 400,000 to seven of 132 processors), and it asks the host nothing.
"""

import torch

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # as everywhere


def no_moments(parameters: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what Adam remembers of K parameters before its first step, by name."""
    return {
        "step": torch.zeros((), device=parameters.device),
        "exp_avg": torch.zeros_like(parameters),
        "exp_avg_sq": torch.zeros_like(parameters),
    }


def adam_(
    parameters: torch.Tensor,
    gradient: torch.Tensor,
    lr: torch.Tensor,
    steps: torch.Tensor,
    step: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
) -> None:
    """Take one step (Kingma and Ba 2015, algorithm 1), in place.

    Args:
        parameters: [K].
        gradient: [K].
        lr: 0-dim.
        steps: 0-dim bool; where it is false every bit stays as it is.
        step: Steps taken, 0-dim; changed too, as what follows.
        exp_avg: Moving average of the gradient, [K].
        exp_avg_sq: Of its square, [K].
    """
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


def adam_on_host_(
    parameters: torch.Tensor,
    gradient: torch.Tensor,
    lr: float,
    step: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
) -> None:
    """Take one step, in place, where numbers cost nothing to ask for; arguments as of `adam_`."""
    step.add_(1.0)
    torch.ops.aten._fused_adam_(
        [parameters], [gradient], [exp_avg], [exp_avg_sq], [], [step],
        lr=lr, beta1=BETA_1, beta2=BETA_2, eps=EPSILON,
        weight_decay=0.0, amsgrad=False, maximize=False,
    )  # fmt: skip
