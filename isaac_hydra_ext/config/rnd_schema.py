"""What `ppo.terms.rnd` reads; rsl_rl's names and defaults. Runs in the learner's process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isaac_hydra_ext.config.knob import knob
from isaac_hydra_ext.config.layers import merge_layers
from isaac_hydra_ext.config.plain import refuse_unknown
from isaac_hydra_ext.errors import ConfigError


@dataclass
class WeightSchedule:
    """How the weight moves with the env steps since the run began, counted in one env."""

    mode: str = knob(
        "constant",
        "step: final_value from final_step on; linear: from initial_step to final_step",
        choices=("constant", "step", "linear"),
    )
    initial_step: int = knob(0, "[steps]", ge=0)
    final_step: int = knob(0, "[steps]", ge=0)
    final_value: float = knob(0.0, "[-] not multiplied by the step's time", ge=0)


@dataclass
class RndConfig:
    """Random network distillation: a reward for what the predictor does not know yet."""

    weight: float = knob(0.0, "[1/s] of that reward, times the env's step_dt if it has one", ge=0)
    weight_schedule: WeightSchedule = field(default_factory=WeightSchedule)
    reward_normalization: bool = knob(False, "by the std of its discounted sum")
    state_normalization: bool = knob(False, "running mean and std of what the networks read")
    learning_rate: float = knob(1e-3, "[-] Adam's, of the predictor", gt=0)
    num_outputs: int = knob(1, "[numbers] that are predicted", ge=1, le=2**16)
    predictor_hidden_dims: list[int] = knob(
        [-1], "[units] of its hidden layers; -1: as many as inputs", ge=-1, le=2**16
    )
    target_hidden_dims: list[int] = knob(
        [-1], "[units] of the network that it predicts", ge=-1, le=2**16
    )
    activation: str = knob(
        "elu", "of both", choices=("elu", "relu", "tanh", "selu", "silu", "gelu")
    )
    obs_groups: list[str] | None = knob(
        None, "what both read; null: the group rnd_state, else the actor's"
    )


@dataclass
class _Terms:
    rnd: RndConfig = field(default_factory=RndConfig)


@dataclass
class _Ppo:
    terms: _Terms = field(default_factory=_Terms)


@dataclass
class Root:
    """A configuration in which it stands where it is typed, so that messages name it so."""

    ppo: _Ppo = field(default_factory=_Ppo)


def read_rnd(settings: Mapping[str, Any] | None) -> Root:
    """Read what `ppo.terms.rnd` is; bounds are checked by `config/checks.py`.

    Raises:
        ConfigError: A key or type that it does not have, or a schedule without a duration.
    """
    settings = {} if settings is None else settings
    if isinstance(settings, Mapping) and settings.get("weight_schedule", 0) is None:
        settings = {
            k: v for k, v in settings.items() if k != "weight_schedule"
        }  # rsl_rl's constant
    refuse_unknown(settings, RndConfig, "ppo.terms.rnd.")
    root = merge_layers(Root, [{"ppo": {"terms": {"rnd": settings}}}])
    rnd = root.ppo.terms.rnd
    schedule = rnd.weight_schedule
    if schedule.mode == "linear" and schedule.final_step <= schedule.initial_step:
        raise ConfigError(
            f"ppo.terms.rnd.weight_schedule.final_step={schedule.final_step}: must be greater than "
            f"initial_step={schedule.initial_step}"
        )
    for name in ("predictor_hidden_dims", "target_hidden_dims"):
        if 0 in (dims := getattr(rnd, name)) or not dims:
            raise ConfigError(f"ppo.terms.rnd.{name}={dims}: sizes, or -1, are expected")
    return root
