"""What PPO of rl_games' YAML says, in this package's knobs. Runs in worker 0 during `describe`."""

import math
from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.section import Section

# Its key below `params.config` -> ours, in section `ppo`.
CONFIG_KEYS = {
    "mini_epochs": "update_epochs",
    "minibatch_size": "batch_size",
    "gamma": "gamma",
    "tau": "lam",
    "e_clip": "clip",
    "entropy_coef": "entropy_coef",
    "normalize_advantage": "normalize_advantages",
}
SCHEDULES = {"adaptive": "adaptive", "linear": "linear", "None": "fixed"}
PPO = ("a2c_continuous", "a2c_discrete")
NO_CLIP = 1e9  # of gradient norms
# Of players, progress and files; networks' first weights are PyTorch's, as rl_games' default is.
_NOT_TRAINING = (
    "device", "device_name", "env_name", "multi_gpu", "ppo", "num_actors", "score_to_win",
    "save_best_after", "print_stats", "player", "use_diagnostics", "full_experiment_name",
    "env_config", "use_smooth_clamp", "clip_actions", "seq_length", "seq_len",
)  # fmt: skip


def is_rl_games(cfg: Mapping[str, Any]) -> bool:
    """Return whether plain data is a cfg of rl_games."""
    params = cfg.get("params")
    return isinstance(params, Mapping) and "algo" in params and "config" in params


def settings_from_rl_games(cfg: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Map a cfg of rl_games to nested settings of ours; returns as `settings_from_rsl_rl`.

    Raises:
        ConfigError: Another algorithm than PPO, or a network this package does not have.
    """
    params = Section("rl_games", cfg["params"])
    algo = params.part("algo")
    if (name := algo.get("name")) not in PPO:
        raise algo.refuse("name", name, "is not PPO")
    config, network = params.part("config"), params.part("network")
    central = config.part("central_value_config")
    ppo = {ours: config[theirs] for theirs, ours in CONFIG_KEYS.items() if theirs in config}
    ppo |= _rate(config)
    ppo["value_coef"] = 0.5 * float(config.get("critic_coef", 2.0))  # its loss has half of it
    ppo["value_clip"] = ppo.get("clip") if config.get("clip_value", True) else None
    norm = float(config.get("grad_norm", 1.0))
    ppo["max_grad_norm"] = norm if config.get("truncate_grads", False) else NO_CLIP
    policy = _policy(params, config, network)
    if central:
        policy |= _central_value(central, network, policy, ppo)
    else:
        groups = [*policy.pop("groups")]
        policy["obs_groups"] = {"actor": groups, "critic": groups}
    policy.pop("groups", None)
    config.expect("value_bootstrap", True, "episodes that a time limit ends are bootstrapped")
    config.expect("bounds_loss_coef", 0.0, "there is no such loss; actions are clipped to bounds")
    config.expect("mixed_precision", False, "ppo.precision says it")
    _scale(config.part("reward_shaper"))
    settings = {
        "experiment": {"name": config["name"], "max_iterations": config["max_epochs"]},
        "rollout": {"steps_per_env": config["horizon_length"]},
        "ppo": ppo,
        "policy": policy,
        "checkpoint": {"every": config.get("save_frequency") or 100},
    }
    config.ignore(*_NOT_TRAINING)
    params.ignore("seed", "load_checkpoint", "load_path", "player")
    for section in (algo, network, central, config, params):
        section.done()
    return settings, tuple(params.notes)


def _rate(config: Section) -> dict[str, Any]:
    """Return how the learning rate starts and moves."""
    schedule = config.get("lr_schedule")
    found: dict[str, Any] = {"lr": float(config.get("learning_rate", 3e-4))}  # YAML: text
    found["lr_schedule"] = SCHEDULES.get(str(schedule), "fixed")
    if "kl_threshold" in config:
        found["desired_kl"] = config["kl_threshold"]
    if (kind := config.get("schedule_type", "legacy")) != "legacy" and schedule == "adaptive":
        config.note("schedule_type", kind, "the rate moves once a minibatch, and not an epoch")
    return found


def _scale(shaper: Section) -> None:
    if float(scale := shaper.get("scale_value", 1.0)) != 1.0:
        shaper.note("scale_value", scale, "rewards are not scaled")
    shaper.done()


def _policy(params: Section, config: Section, network: Section) -> dict[str, Any]:
    """Return the knobs of `policy`, and what the actor reads as `groups`."""
    model = params.part("model")
    model.ignore("name")
    model.done()
    env = params.part("env")
    if not math.isinf(limit := float(env.get("clip_observations", math.inf))):
        env.note("clip_observations", limit, "observations are not clipped")
    clip = float(env.get("clip_actions", math.inf))
    groups = Section("rl_games", env.get("obs_groups") or {"obs": ["policy"]})
    if network.get("name", "actor_critic") != "actor_critic":
        raise network.refuse("name", network.get("name"), "is not supported")
    network.expect("separate", True, "actor and critic share no layers")
    hidden, activation = _mlp(network)
    normalize = config.get("normalize_input", False)
    settings: dict[str, Any] = {
        "hidden_dims": hidden,
        "activation": activation,
        "normalize_obs": normalize,
        "normalize_critic_obs": normalize,
        "normalize_values": config.get("normalize_value", False),
        "clip_actions": None if math.isinf(clip) else clip,
        "groups": groups["obs"],
    }
    env.ignore("concate_obs_groups", "obs_groups")
    env.done()
    settings |= _std(network.part("space"))
    if memory := _memory(network.part("rnn")):
        settings["recurrent"] = memory
    if network.get("cnn"):
        settings["encoders"] = {"*": _cnn(network.part("cnn"))}
    return settings


def _mlp(network: Section) -> tuple[list[int], str]:
    mlp = network.part("mlp")
    if mlp.get("d2rl"):
        raise mlp.refuse("d2rl", True, "is not supported")
    found = list(mlp["units"]), str(mlp.get("activation", "elu"))
    for key in ("initializer", "regularizer"):
        part = mlp.part(key)
        if (name := part.get("name", "default")) not in ("default", "None", None):
            part.note("name", name, "weights start as PyTorch's, with no penalty")
    mlp.done()
    return found


def _std(space: Section) -> dict[str, Any]:
    """Return the Gaussian; `fixed_sigma` is a std that no observation changes, yet learned."""
    part = space.part("continuous")
    for key in ("mu_activation", "sigma_activation"):
        if (value := part.get(key)) not in (None, "None"):
            part.note(key, value, "the last layer has no activation")
    start = part.part("sigma_init")
    value = float(start.get("val", 0.0))
    part.ignore("mu_init")
    start.ignore("name")
    space.ignore("discrete", "multi_discrete")
    kind = "gaussian" if part.get("fixed_sigma", True) else "heteroscedastic"
    for section in (start, part, space):
        section.done()
    return {"distribution": kind, "std_type": "log", "init_std": math.exp(value)}


def _memory(rnn: Section) -> dict[str, Any] | None:
    if not rnn:
        return None
    if not rnn.get("before_mlp", False):
        raise rnn.refuse("before_mlp", False, "is not supported: the memory is before the MLP")
    found = {"kind": rnn["name"], "hidden": rnn["units"], "layers": rnn.get("layers", 1)}
    rnn.expect("concat_input", False, "the MLP reads the memory alone")
    rnn.expect("concat_output", False, "the MLP reads the memory alone")
    rnn.expect("layer_norm", False, "there is none after the memory")
    rnn.expect("zero_rnn_on_done", True, "it begins anew with each episode")
    rnn.done()
    return found


def _cnn(cnn: Section) -> dict[str, Any]:
    layers = [Section("rl_games", layer, notes=cnn.notes) for layer in cnn["convs"]]
    found = {
        "kind": "cnn",
        "channels": [layer["filters"] for layer in layers],
        "kernel": [layer["kernel_size"] for layer in layers],
        "stride": [layer["strides"] for layer in layers],
        "activation": cnn.get("activation", "elu"),
    }
    for layer in layers:
        if layer.get("padding", 0):
            raise cnn.refuse("convs", "padding", "is not supported")
        layer.done()
    if (kind := cnn.get("type", "conv2d")) != "conv2d":
        raise cnn.refuse("type", kind, "is not supported")
    cnn.ignore("permute_input", "initializer", "regularizer")  # the layout is known from the shape
    cnn.done()
    return found


def _central_value(
    central: Section, network: Section, policy: Mapping[str, Any], ppo: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the critic's own knobs; what it learns by is the actor's here."""
    own = central.part("network")
    hidden, activation = _mlp(own)
    memory = _memory(own.part("rnn"))
    if memory != policy.get("recurrent"):
        own.note("rnn", memory, f"the critic's memory is as the actor's, {policy.get('recurrent')}")
    own.ignore("name", "central_value")
    own.done()
    same = {"mini_epochs": "update_epochs", "minibatch_size": "batch_size",
            "lr_schedule": "lr_schedule", "kl_threshold": "desired_kl"}  # fmt: skip
    if float(rate := central.get("learning_rate", ppo["lr"])) != ppo["lr"]:
        central.note("learning_rate", rate, f"the critic's is the actor's, {ppo['lr']:g}")
    for theirs, ours in same.items():
        if (value := central.get(theirs, ppo.get(ours))) != ppo.get(ours):
            central.note(theirs, value, f"the critic's is the actor's, {ppo.get(ours)}")
    found = {
        "critic_hidden_dims": hidden,
        "critic_activation": None if activation == policy["activation"] else activation,
        "normalize_critic_obs": central.get("normalize_input", False),
    }
    central.ignore("clip_value", "truncate_grads", "schedule_type", "grad_norm")
    return found
