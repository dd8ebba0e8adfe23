"""What PPO of skrl's YAML says, in this package's knobs. Runs in worker 0 during `describe`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.section import Section

# Its key below `agent` -> ours, in section `ppo`.
AGENT_KEYS = {
    "learning_epochs": "update_epochs",
    "mini_batches": "num_mini_batches",
    "discount_factor": "gamma",
    "lambda": "lam",
    "learning_rate": "lr",
    "ratio_clip": "clip",
    "entropy_loss_scale": "entropy_coef",
    "value_loss_scale": "value_coef",
}
SCHEDULERS = {"KLAdaptiveLR": "adaptive", "KLAdaptiveRL": "adaptive", "LinearLR": "linear"}
SCALER = "RunningStandardScaler"
DISTRIBUTIONS = ("GaussianMixin", "CategoricalMixin", "MultiCategoricalMixin")
LEAST_STD, LARGEST_STD = 1e-6, 1e6  # of `policy.std_range`
NO_CLIP = 1e9  # of gradient norms


def is_skrl(cfg: Mapping[str, Any]) -> bool:
    """Return whether plain data is a cfg of skrl."""
    return all(isinstance(cfg.get(key), Mapping) for key in ("agent", "models", "trainer"))


def settings_from_skrl(cfg: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Map a cfg of skrl to nested settings of ours; returns as `settings_from_rsl_rl`.

    Raises:
        ConfigError: Another algorithm than PPO, or a network this package does not have.
    """
    whole = Section("skrl", cfg)
    agent, trainer = whole.part("agent"), whole.part("trainer")
    if (kind := agent.get("class")) != "PPO":
        raise agent.refuse("class", kind, "is not PPO")
    ppo = {ours: agent[theirs] for theirs, ours in AGENT_KEYS.items() if theirs in agent}
    scheduler, options = (
        agent.get("learning_rate_scheduler"),
        agent.part("learning_rate_scheduler_kwargs"),
    )
    ppo["lr_schedule"] = SCHEDULERS.get(str(scheduler), "fixed")
    if "kl_threshold" in options:
        ppo["desired_kl"] = options["kl_threshold"]
        agent.note(
            "learning_rate_scheduler",
            scheduler,
            "the rate moves once a minibatch, and not an epoch",
        )
    options.done()
    if stop := agent.get("kl_threshold", 0.0):
        ppo["stop_kl"] = stop
    ppo["max_grad_norm"] = agent.get("grad_norm_clip", 0.5) or NO_CLIP
    clip = agent.get("value_clip") or None
    ppo["value_clip"] = clip if agent.get("clip_predicted_values", False) else None
    normalize = agent.get("state_preprocessor") == SCALER
    values = agent.get("value_preprocessor") == SCALER
    policy = _policy(whole.part("models"))
    policy |= {"normalize_obs": normalize, "normalize_critic_obs": normalize}
    policy["normalize_values"] = values
    agent.expect("rewards_shaper_scale", 1.0, "rewards are not scaled")
    agent.expect("time_limit_bootstrap", True, "episodes that a time limit ends are bootstrapped")
    agent.expect("mixed_precision", False, "ppo.precision says it")
    agent.expect("random_timesteps", 0, "every step is the policy's")
    agent.expect("learning_starts", 0, "every rollout is learned from")
    experiment = agent.part("experiment")
    steps = int(agent["rollouts"])
    settings: dict[str, Any] = {
        "experiment": {
            "name": str(experiment["directory"]),
            "max_iterations": max(1, int(trainer["timesteps"]) // steps),
        },
        "rollout": {"steps_per_env": steps},
        "ppo": ppo,
        "policy": policy,
    }
    every = experiment.get("checkpoint_interval", "auto")
    if isinstance(every, int) and every > 0:
        settings["checkpoint"] = {"every": max(1, every // steps)}
    # Of progress and files; its memory holds one rollout.
    agent.ignore("state_preprocessor_kwargs", "value_preprocessor_kwargs")
    whole.ignore("seed", "memory")
    for section in (agent, whole):
        section.done()
    return settings, tuple(whole.notes)


def _policy(models: Section) -> dict[str, Any]:
    """Return the knobs of `policy` that the two models name."""
    models.expect("separate", True, "actor and critic share no layers")
    actor, critic = models.part("policy"), models.part("value")
    if (kind := actor.get("class")) not in DISTRIBUTIONS:
        raise actor.refuse("class", kind, "is not supported")
    settings = {}
    for model, prefix in ((actor, ""), (critic, "critic_")):
        hidden, activation, pictures = _network(model)
        settings |= {f"{prefix}hidden_dims": hidden, f"{prefix}activation": activation}
        if pictures is not None and settings.setdefault("encoders", {"*": pictures}) != {
            "*": pictures
        }:
            raise model.refuse("network", pictures, "has other encoders than the actor's")
    if kind == "GaussianMixin":
        settings |= _std(actor)
    critic.ignore("class", "clip_actions")
    actor.ignore("clip_actions", "unnormalized_log_prob")  # the env's copy is clipped to its bounds
    for section in (actor, critic, models):
        section.done()
    return settings


def _std(actor: Section) -> dict[str, Any]:
    start, learned = actor.get("initial_log_std", 0.0), not actor.get("fixed_log_std", False)
    low, high = actor.get("min_log_std", -20.0), actor.get("max_log_std", 2.0)
    actor.expect("reduction", "sum", "log-probs of an action's parts are added")
    settings: dict[str, Any] = {"std_type": "log", "init_std": math.exp(start)}
    if actor.get("clip_log_std", True):
        bounds = max(math.exp(low), LEAST_STD), min(math.exp(high), LARGEST_STD)
        settings["std_range"] = list(bounds)
        settings["init_std"] = min(max(settings["init_std"], bounds[0]), bounds[1])
    return settings if learned else {**settings, "learn_std": False}


def _network(model: Section) -> tuple[list[int], str, dict[str, Any] | None]:
    """Return hidden layers, activation, and the encoder of pictures in front of them, if any."""
    parts = [Section("skrl", part, "network.", model.notes) for part in model["network"] or ()]
    if not 1 <= len(parts) <= 2:
        raise model.refuse("network", f"{len(parts)} parts", "is not supported")
    pictures = None if len(parts) == 1 else _pictures(parts[0])
    last = parts[-1]
    inputs, layers = str(last.get("input")), last["layers"]
    plain = inputs in ("OBSERVATIONS", "STATES")
    if not plain and (pictures is None or inputs != parts[0].get("name")):
        raise last.refuse("input", inputs, "is not supported")
    if not all(isinstance(units, int) for units in layers):
        raise last.refuse("layers", layers, "is not supported")
    activations = _alike(last, last.get("activations", "elu"))
    if (output := model.get("output")) not in ("ACTIONS", "ONE"):
        raise model.refuse("output", output, "is not supported: use policy.squash=tanh")
    for part in parts:
        part.ignore("name")
        part.done()
    return list(layers), activations, pictures


def _pictures(part: Section) -> dict[str, Any]:
    """Return the encoder that convolutions and a `flatten` are."""
    inputs, layers = str(part.get("input")), part["layers"]
    found = [layer.get("conv2d") for layer in layers if isinstance(layer, Mapping)]
    convolutions: list[Mapping[str, Any]] = [layer for layer in found if layer]
    whole = "[" not in inputs and 0 < len(convolutions) == len(found)
    if not whole or layers[len(convolutions) :] != ["flatten"]:
        raise part.refuse("layers", layers, "is not supported: convolutions, then flatten")
    if any(layer.get("padding", 0) for layer in convolutions):
        raise part.refuse("layers", layers, "is not supported: padding")
    return {
        "kind": "cnn",
        "channels": [layer["out_channels"] for layer in convolutions],
        "kernel": [layer["kernel_size"] for layer in convolutions],
        "stride": [layer.get("stride", 1) for layer in convolutions],
        "activation": _alike(part, part.get("activations", "elu")),
    }


def _alike(part: Section, activations: str | Sequence[str | None]) -> str:
    kinds = {activations} if isinstance(activations, str) else set(activations)
    if len(kinds) != 1 or None in kinds:
        raise part.refuse("activations", activations, "is not supported: one for all layers")
    return str(kinds.pop())
