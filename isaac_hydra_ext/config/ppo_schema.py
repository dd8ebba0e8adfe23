"""The configuration of the update, the part `ppo` of `schema.py`. Used in every process."""

from dataclasses import dataclass, field
from typing import Any

from isaac_hydra_ext.config.knob import MAX_INT, knob


@dataclass
class SymmetryConfig:
    """What the task is symmetric in; the names are rsl_rl's (Mittal et al. 2024)."""

    data_augmentation_func: str | None = knob(
        None, "the task's own function, MODULE:FUNCTION; it is called where the env lives"
    )
    mirrors: dict[str, Any] = knob(
        {},
        "written out instead: {flipped: {obs: {policy: [1, -2, -3]}, action: [-1]}}: which entry, "
        "from 1, stands at each place, and its sign",
    )
    use_data_augmentation: bool = knob(False, "each minibatch has its mirrored samples too")
    use_mirror_loss: bool = knob(False, "else, without augmentation too, it is only measured")
    mirror_loss_coeff: float = knob(0.0, "[-] weight of that loss, on mean actions", ge=0)


@dataclass
class PPOConfig:
    """The update. Names and defaults follow rsl_rl where it has them."""

    update_epochs: int = knob(5, "[passes] over the N_buffer samples per iteration", ge=1)
    batch_size: int = knob(
        8192, "[samples] M: per minibatch at most; ceil(N_buffer / M) equal ones an epoch", ge=1
    )
    num_mini_batches: int | None = knob(
        None, "[minibatches] per epoch, instead of batch_size", ge=1, le=MAX_INT
    )
    optimizer: str = knob(
        "adam",
        "with torch's defaults, as in rsl_rl",
        choices=("adam", "adamw", "sgd", "rmsprop"),
    )
    lr: float = knob(1e-3, "[-] learning rate, at the start where a schedule moves it", gt=0)
    lr_schedule: str = knob(
        "adaptive", "adaptive on KL (rsl_rl's rule)", choices=("adaptive", "fixed", "linear")
    )
    desired_kl: float = knob(0.01, "[nats] what the adaptive schedule aims at", gt=0)
    stop_kl: float | None = knob(None, "[nats] skip the rest of an update beyond it", gt=0)
    gamma: float = knob(0.99, "[-] discount per env step", ge=0, le=1)
    lam: float = knob(0.95, "[-] GAE's (or V-trace's) lambda", ge=0, le=1)
    clip: float = knob(0.2, "[-] ratio clip around the proximal policy", gt=0)
    value_clip: float | None = knob(
        0.2, "[return] clip of the value's move per iteration; null: off", gt=0
    )
    entropy_coef: float = knob(0.005, "[-] weight of the entropy bonus", ge=0)
    value_coef: float = knob(1.0, "[-] weight of the (not halved) squared value error", ge=0)
    max_grad_norm: float = knob(1.0, "[-] gradient norm clip, of actor and critic apart", gt=0)
    normalize_advantages: bool = knob(True, "to mean 0, std 1, once over the iteration")
    normalize_advantages_per_mini_batch: bool = knob(False, "in each minibatch instead")
    advantages: str = knob("gae", "estimator", choices=("gae", "vtrace"))
    rho_bar: float = knob(1.0, "[-] V-trace: truncation of rho in delta", gt=0)
    c_bar: float = knob(1.0, "[-] V-trace: truncation of the trace coefficient", gt=0)
    max_importance_weight: float = knob(
        2.0, "[-] truncation of proximal/behaviour in the decoupled loss", ge=1
    )
    symmetry: SymmetryConfig = field(default_factory=SymmetryConfig)
    terms: dict[str, Any] = knob(
        {}, "losses that packages register, with what each reads: {my_term: {weight: 0.1}}"
    )
    max_bad_updates: int = knob(
        3, "[updates] in a row that are undone for NaN or Inf; one more ends the run", ge=0
    )
    scale_with_ranks: list[str] = knob(
        [],
        "what is multiplied by the number of learners R: lr, num_mini_batches, update_epochs",
        choices=("lr", "num_mini_batches", "update_epochs"),
    )
    precision: str = knob(
        "auto",
        "matrix products: tf32 and bf16 need CUDA; auto: tf32 on a GPU that has it, else fp32",
        choices=("auto", "fp32", "tf32", "bf16"),
    )
    cuda_graphs: bool = knob(True, "record updates, and acting, once and replay them, on a GPU")
    compile: str = knob(
        "auto",
        "fuse the update's kernels with torch.compile (3 to 30 s at the start; needs a compiler); "
        "auto: on a GPU, from 16,384 samples an iteration on",
        choices=("auto", "always", "never"),
    )
