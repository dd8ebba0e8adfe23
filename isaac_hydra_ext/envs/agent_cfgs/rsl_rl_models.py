"""rsl_rl's actor and critic, or one `policy` of both before rsl_rl 4, as our `policy`.

Runs in worker 0 during `describe`.
"""

import importlib
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.rsl_rl_encoders import (
    FIXED_TEMPERATURE,
    SHARED,
    SPATIAL_SOFTMAX,
    encoders,
)
from isaac_hydra_ext.envs.agent_cfgs.section import Section

# A class as rsl_rl resolves it -> what it is here. Its own are named without their module.
MODELS = {"MLPModel": "mlp", "RNNModel": "rnn", "CNNModel": "cnn"}
LAB = "isaaclab_tasks."
OF_TASKS = {
    f"{LAB}core.lift.config.kuka_allegro.agents.models:{SPATIAL_SOFTMAX}": SPATIAL_SOFTMAX,
    f"{LAB}contrib.keyboard.agents.models:{SHARED}": SHARED,
    f"mjlab.rl.spatial_softmax:{SPATIAL_SOFTMAX}": FIXED_TEMPERATURE,
}
MODELS |= {"ActorCritic": "mlp", "ActorCriticRecurrent": "rnn", "ActorCriticCNN": "cnn"}
GAUSSIAN, BETA = "GaussianDistribution", "BetaDistribution"
DISTRIBUTIONS = {
    GAUSSIAN: "gaussian",
    f"Heteroscedastic{GAUSSIAN}": "heteroscedastic",
    BETA: "beta",
}
# Of Isaac Lab 3.0.0: a Gaussian whose std a sigmoid keeps in its range, as ours a projection does.
BOUNDED = "UR10ParticlePushGaussianDistribution"
UNBOUNDED_STD = (1e-6, 1e6)  # rsl_rl's std_range where nobody says one
NETWORK = ["config", "role", "num_inputs", "num_outputs"]
TO_IMPLEMENT = (
    "is a class of the task's own, made for rsl_rl: implement build(config, role, num_inputs, "
    "num_outputs) -> nn.Module, and register it as policy.network (docs/extending.md)"
)


def class_name(value: Any) -> str:
    """Return the name of a class: short for rsl_rl's own, else as `module:Name`."""
    text = re.sub(r"^<class '(.*)'>$", r"\1", str(value or ""))
    module, _, name = text.replace(":", ".").rpartition(".")
    return name if not module or module.split(".")[0] == "rsl_rl" else f"{module}:{name}"


def with_two_models(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite rsl_rl 1-3's layouts, `policy` for both models, to `actor` and `critic`."""
    cfg = {**(cfg.get("runner") or {}), **cfg}  # rsl_rl 1 as legged_gym has it
    cfg.pop("runner", None)
    policy = dict(cfg.pop("policy"))
    both = bool(cfg.pop("empirical_normalization", False))
    kind = policy.pop("class_name", None) or cfg.pop("policy_class_name", None)
    cfg["algorithm"] = {"class_name": cfg.pop("algorithm_class_name", "PPO"), **cfg["algorithm"]}
    wide = policy.pop("state_dependent_std", False)
    std = {
        "class_name": f"Heteroscedastic{GAUSSIAN}" if wide else GAUSSIAN,
        "init_std": policy.pop("init_noise_std", 1.0),
        "std_type": policy.pop("noise_std_type", "scalar"),
    }
    hidden = policy.pop("rnn_hidden_size", None)  # until rsl_rl 2
    models: dict[str, dict[str, Any]] = {}
    for role in ("actor", "critic"):
        model = models[role] = {"class_name": kind, "obs_normalization": both}
        for key in [key for key in policy if key.startswith(f"{role}_")]:
            value = policy.pop(key)
            if value is not None:
                model[key.removeprefix(f"{role}_")] = value
        if hidden is not None:
            model["rnn_hidden_dim"] = hidden
    for model in models.values():
        model.update(policy)  # what both share, and what nobody here knows
    models["actor"]["distribution_cfg"] = std
    return {**cfg, **models}


def policy_settings(actor: Section, critic: Section) -> dict[str, Any]:
    """Return the knobs of `policy` that two models name.

    Raises:
        ConfigError: A class that is not known, and is no `policy.network` of ours either.
    """
    settings = {
        "hidden_dims": list(actor.get("hidden_dims", [256, 256, 256])),
        "critic_hidden_dims": list(critic.get("hidden_dims", [256, 256, 256])),
        "activation": actor.get("activation", "elu"),
        "normalize_obs": actor.get("obs_normalization", False),
        "normalize_critic_obs": critic.get("obs_normalization", False),
    }
    other = critic.get("activation", "elu")
    settings["critic_activation"] = None if other == settings["activation"] else other
    settings |= _network(actor, critic)
    settings |= _distribution(actor)
    critic.ignore("distribution_cfg", "init_noise_std", "noise_std_type", "stochastic")
    critic.ignore("state_dependent_std")
    return settings


def _network(actor: Section, critic: Section) -> dict[str, Any]:
    """Return what says which networks the two are."""
    names = [class_name(model.get("class_name")) or "MLPModel" for model in (actor, critic)]
    kinds = [MODELS.get(name) or OF_TASKS.get(name) for name in names]
    own = [name for name, kind in zip(names, kinds, strict=True) if kind is None]
    if own and names[0] == names[1] and is_network(own[0]):
        return {"network": own[0]}
    found: list[dict[str, Any]] = []
    for model, name, kind in zip((actor, critic), names, kinds, strict=True):
        if kind is None:
            raise model.refuse("class_name", name, TO_IMPLEMENT)
        found.append(encoders(model, kind))
    differing = [g for g in found[0] if g in found[1] and found[0][g] != found[1][g]]
    if differing:
        raise critic.refuse(
            "cnn_cfg", found[1], f"has other encoders of {', '.join(differing)} than the actor, "
            "not supported"
        )  # fmt: skip
    settings: dict[str, Any] = {}
    if together := found[1] | found[0]:
        settings |= {"encoders": together, "share_encoders": SHARED in kinds}
    memories = [_memory(model) for model in (actor, critic)]
    if memories[0] != memories[1]:
        raise critic.refuse(
            "rnn_type", memories[1], f"is another memory than the actor's, {memories[0]}: not "
            "supported"
        )  # fmt: skip
    return settings | ({"recurrent": memories[0]} if memories[0] else {})


def _memory(model: Section) -> dict[str, Any] | None:
    """Return a model's memory as `policy.recurrent` has it."""
    kind, hidden = model.get("rnn_type"), model.get("rnn_hidden_dim", 256)
    layers = model.get("rnn_num_layers", 1)
    if kind is None:
        return None
    return {"kind": str(kind).lower(), "hidden": hidden, "layers": layers}


def is_network(name: str) -> bool:
    """Return whether `module:Name` takes what `policy.network` is given (`models/networks.py`)."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        return list(inspect.signature(found).parameters) == NETWORK
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def _distribution(actor: Section) -> dict[str, Any]:
    """Return what says how actions are drawn, of rsl_rl 5's layout or rsl_rl 4's."""
    actor.ignore("stochastic")
    older = actor.get("init_noise_std", 1.0), actor.get("noise_std_type", "scalar")
    wide = actor.get("state_dependent_std", False)
    part = actor.part("distribution_cfg")
    name = class_name(part.get("class_name")) or GAUSSIAN
    if wide and name == GAUSSIAN:
        name = f"Heteroscedastic{GAUSSIAN}"
    init, std_type = part.get("init_std", older[0]), part.get("std_type", older[1])
    low, high = part.get("std_range") or UNBOUNDED_STD
    learn = part.get("learn_std", True)
    if name.endswith(f":{BOUNDED}"):
        part.note("class_name", name, "its std is kept in std_range by clamping")
        name = GAUSSIAN
    if name not in DISTRIBUTIONS:
        raise part.refuse(
            "class_name", name,
            "is a distribution of the task's own: implement a Policy (`models/policy.py`) that "
            "has it, and register it as policy.kind",
        )  # fmt: skip
    settings: dict[str, Any] = {"distribution": DISTRIBUTIONS[name]}
    if name == BETA:
        settings |= _bounds(part)
    else:
        settings |= {"init_std": min(max(init, low), high), "std_type": std_type}
        settings["std_range"] = None if (low, high) == UNBOUNDED_STD else [max(low, 1e-6), high]
        if not learn:
            settings["learn_std"] = False
    part.done()
    return settings


def _bounds(part: Section) -> dict[str, Any]:
    """Return what stands for Beta's `action_range`: ours are the env's bounds, else +-1."""
    low, high = part.get("action_range") or (-1.0, 1.0)
    if not math.isclose(low, -high):
        raise part.refuse("action_range", [low, high], "is not symmetric, not supported")
    return {} if high == 1.0 else {"clip_actions": float(high)}
