"""The configuration of a student, the part `distillation` of `schema.py`. Used in every process."""

from dataclasses import dataclass

from isaac_hydra_ext.config.knob import knob


@dataclass
class DistillationConfig:
    """A student of a teacher (algorithm.kind=distillation). Names and defaults follow rsl_rl.

    How updates are computed (`precision`, `cuda_graphs`, `max_bad_updates`) is PPO's to say.
    """

    teacher: str | None = knob(
        None, "whose actions are imitated: a run directory, a checkpoint, or what appo export wrote"
    )
    teacher_groups: list[str] | None = knob(
        None, "this env's obs groups that are the teacher's, in its order; null: of the same names"
    )
    update_epochs: int = knob(1, "[passes] over the rollouts per iteration", ge=1)
    gradient_length: int = knob(
        15, "[steps] of all envs in a gradient step at most; ceil(T / this) equal ones a pass", ge=1
    )
    optimizer: str = knob(
        "adam", "with torch's defaults, as in rsl_rl", choices=("adam", "adamw", "sgd", "rmsprop")
    )
    lr: float = knob(1e-3, "[-] learning rate", gt=0)
    max_grad_norm: float | None = knob(None, "[-] gradient norm clip; null: off", gt=0)
    loss: str = knob(
        "mse", "between the two mean actions, before squashing", choices=("mse", "huber")
    )
