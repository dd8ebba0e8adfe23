"""What a task's rsl_rl configuration says, in this package's knobs.

Tasks of mjlab and Isaac Lab are tuned for rsl_rl; the trainer starts from the same numbers. Runs in
worker 0 during `describe`. The layout read is rsl_rl 5's (`actor`, `critic`, `algorithm`).
"""

from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.errors import ConfigError

# rsl_rl's algorithm key -> ours, in section `ppo`.
_ALGORITHM = {
    "num_learning_epochs": "update_epochs",
    "num_mini_batches": "num_mini_batches",
    "learning_rate": "lr",
    "schedule": "lr_schedule",
    "gamma": "gamma",
    "lam": "lam",
    "entropy_coef": "entropy_coef",
    "desired_kl": "desired_kl",
    "max_grad_norm": "max_grad_norm",
    "value_loss_coef": "value_coef",
    "clip_param": "clip",
}


def settings_from_rsl_rl(cfg: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Map an rsl_rl runner cfg to nested settings of ours.

    Args:
        cfg: The runner cfg as plain data.

    Returns:
        Settings for `load_config(task_settings=...)`, and a line for each value that has no
        counterpart and differs from what this package does.

    Raises:
        ConfigError: The task wants a network this package does not have.
    """
    actor, critic, algorithm = cfg["actor"], cfg["critic"], cfg["algorithm"]
    for name, model in (("actor", actor), ("critic", critic)):
        for key, what in (("rnn_type", "a recurrent"), ("cnn_cfg", "a convolutional")):
            if model.get(key) is not None:
                raise ConfigError(
                    f"env.task: its rsl_rl cfg asks for {what} {name}, which is not supported; "
                    "choose a task whose observations are plain vectors"
                )
    distribution = actor.get("distribution_cfg") or {}
    kind = distribution.get("class_name", "GaussianDistribution")
    if kind != "GaussianDistribution":
        raise ConfigError(f"env.task: its rsl_rl cfg asks for a {kind}, which is not supported")
    ppo = {ours: algorithm[theirs] for theirs, ours in _ALGORITHM.items() if theirs in algorithm}
    clipped = algorithm.get("use_clipped_value_loss", True)
    ppo["value_clip"] = algorithm.get("clip_param") if clipped else None
    notes = []
    if algorithm.get("normalize_advantage_per_mini_batch"):
        notes.append("rsl_rl's normalize_advantage_per_mini_batch: normalised per iteration here")
    if algorithm.get("optimizer", "adam") != "adam":
        notes.append(f"rsl_rl's optimizer={algorithm['optimizer']}: Adam is used here")
    for key in ("rnd_cfg", "symmetry_cfg"):
        if algorithm.get(key) is not None:
            notes.append(f"rsl_rl's {key}: not supported, left out")
    if critic["activation"] != actor["activation"]:
        notes.append(f"rsl_rl's critic activation {critic['activation']}: the actor's is used")
    settings = {
        "experiment": {"name": cfg["experiment_name"], "max_iterations": cfg["max_iterations"]},
        "rollout": {"steps_per_env": cfg["num_steps_per_env"]},
        "ppo": ppo,
        "policy": {
            "hidden_dims": list(actor["hidden_dims"]),
            "critic_hidden_dims": list(critic["hidden_dims"]),
            "activation": actor["activation"],
            "normalize_obs": actor["obs_normalization"],
            "normalize_critic_obs": critic["obs_normalization"],
            "init_std": distribution.get("init_std", 1.0),
            "std_type": distribution.get("std_type", "scalar"),
            "clip_actions": cfg.get("clip_actions"),
            "obs_groups": {name: list(groups) for name, groups in cfg["obs_groups"].items()},
        },
        "checkpoint": {"every": cfg["save_interval"]},
    }
    return settings, tuple(notes)
