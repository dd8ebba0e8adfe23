"""What a task's rsl_rl configuration says, in this package's knobs.

Tasks of mjlab and Isaac Lab are tuned for rsl_rl; the trainer starts from the same numbers. Runs in
worker 0 during `describe`. The layout read is rsl_rl 5's (`actor`, `critic`, `algorithm`); the
older one (`policy`, `empirical_normalization`), which Isaac Lab 2.x has, is rewritten to it first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from isaac_hydra_ext.errors import ConfigError

# rsl_rl's algorithm key -> ours, in section `ppo`.
ALGORITHM_KEYS = {
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
    "normalize_advantage_per_mini_batch": "normalize_advantages_per_mini_batch",
}
_NETWORKS = (("rnn_type", "a recurrent"), ("cnn_cfg", "a convolutional"))
_INSTEAD = "not supported; env.agent=none starts from this package's defaults instead"


def settings_from_rsl_rl(
    cfg: Mapping[str, Any], groups: Sequence[str] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Map an rsl_rl runner cfg to nested settings of ours.

    Args:
        cfg: The runner cfg as plain data; what nobody set may be absent.
        groups: Names of the env's obs groups, where they are known by now.

    Returns:
        Settings for `Settings.config(task_settings)`, and a line for each value that has no
        counterpart and differs from what this package does.

    Raises:
        ConfigError: The task wants a network or an algorithm this package does not have.
    """
    _refuse_other_algorithms(cfg)
    if not cfg.get("actor"):
        if not cfg.get("policy"):
            raise ConfigError(f"env.task: its rsl_rl cfg has no actor and no policy, {_INSTEAD}")
        cfg = _current_layout(cfg)
    actor, critic, algorithm = cfg["actor"], cfg["critic"], cfg["algorithm"]
    _refuse_other_networks(actor, critic)
    ppo = {
        ours: algorithm[theirs] for theirs, ours in ALGORITHM_KEYS.items() if theirs in algorithm
    }
    clipped = algorithm.get("use_clipped_value_loss", True)
    ppo["value_clip"] = algorithm.get("clip_param") if clipped else None
    if "optimizer" in algorithm:
        ppo["optimizer"] = str(algorithm["optimizer"]).lower()
    notes = []
    if critic["activation"] != actor["activation"]:
        notes.append(f"rsl_rl's critic activation {critic['activation']}: the actor's is used")
    distribution = actor.get("distribution_cfg") or {
        "init_std": actor.get("init_noise_std", 1.0),  # of rsl_rl 4
        "std_type": actor.get("noise_std_type", "scalar"),
    }
    settings = {
        "experiment": {"name": cfg["experiment_name"], "max_iterations": cfg["max_iterations"]},
        "rollout": {"steps_per_env": cfg["num_steps_per_env"]},
        "ppo": ppo,
        "policy": {
            "hidden_dims": list(actor["hidden_dims"]),
            "critic_hidden_dims": list(critic["hidden_dims"]),
            "activation": actor["activation"],
            "normalize_obs": actor.get("obs_normalization", False),
            "normalize_critic_obs": critic.get("obs_normalization", False),
            "init_std": distribution.get("init_std", 1.0),
            "std_type": distribution.get("std_type", "scalar"),
            "clip_actions": cfg.get("clip_actions"),
            "obs_groups": _obs_groups(cfg.get("obs_groups") or {}, groups),
        },
        "checkpoint": {"every": cfg["save_interval"]},
    }
    return settings, tuple(notes)


def is_rsl_rl(cfg: Mapping[str, Any]) -> bool:
    """Return whether plain data is an rsl_rl runner's cfg, and not another trainer's."""
    return isinstance(cfg.get("algorithm"), Mapping) and "num_steps_per_env" in cfg


def _obs_groups(
    asked: Mapping[str, Sequence[str]], groups: Sequence[str] | None
) -> dict[str, list[str]] | None:
    """Return actor's and critic's groups; None leaves the choice to their names.

    A set that rsl_rl's cfg does not name is the group of that name, else `policy`. The policy's
    set was called `policy` before rsl_rl 4.
    """
    chosen: dict[str, list[str]] = {}
    for role, older in (("actor", "policy"), ("critic", "critic")):
        names = asked.get(role) or asked.get(older)
        if names:
            chosen[role] = list(names)
        elif groups:
            chosen[role] = [role if role in groups else "policy"]
    return chosen or None


def _current_layout(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite rsl_rl 1-3's `policy` to `actor` and `critic`."""
    policy = cfg["policy"]
    both = bool(cfg.get("empirical_normalization", False))
    shared = {k: policy[k] for k in ("activation", "rnn_type", "cnn_cfg") if k in policy}
    kind = "GaussianDistribution"
    if policy.get("state_dependent_std"):
        kind = "Heteroscedastic" + kind
    actor, critic = (
        {
            **shared,
            "hidden_dims": policy[f"{role}_hidden_dims"],
            "obs_normalization": policy.get(f"{role}_obs_normalization", both),
        }
        for role in ("actor", "critic")
    )
    actor["distribution_cfg"] = {
        "class_name": kind,
        "init_std": policy.get("init_noise_std", 1.0),
        "std_type": policy.get("noise_std_type", "scalar"),
    }
    return {**cfg, "actor": actor, "critic": critic}


def _refuse_other_algorithms(cfg: Mapping[str, Any]) -> None:
    """Refuse what is more than PPO."""
    algorithm = cfg.get("algorithm") or {}
    names = (str(part.get("class_name", "")) for part in (cfg, algorithm, cfg.get("policy") or {}))
    if any("Distillation" in name or "StudentTeacher" in name for name in names):
        raise ConfigError(f"env.task: its rsl_rl cfg is for distillation, {_INSTEAD}")
    if algorithm.get("rnd_cfg") is not None:
        raise ConfigError(
            f"env.task: its rsl_rl cfg (algorithm.rnd_cfg) asks for random network distillation, "
            f"{_INSTEAD}"
        )
    symmetry = algorithm.get("symmetry_cfg") or {}
    if symmetry.get("use_data_augmentation") or symmetry.get("use_mirror_loss"):
        raise ConfigError(
            f"env.task: its rsl_rl cfg (algorithm.symmetry_cfg) asks for symmetry, {_INSTEAD}"
        )


def _refuse_other_networks(actor: Mapping[str, Any], critic: Mapping[str, Any]) -> None:
    """Refuse networks and distributions that are not a plain MLP's Gaussian."""
    for name, model in (("actor", actor), ("critic", critic)):
        for key, what in _NETWORKS:
            if model.get(key) is not None:
                raise ConfigError(
                    f"env.task: its rsl_rl cfg asks for {what} {name} ({key}), {_INSTEAD}"
                )
    kind = (actor.get("distribution_cfg") or {}).get("class_name", "GaussianDistribution")
    if kind != "GaussianDistribution" or actor.get("state_dependent_std"):
        asked = kind if kind != "GaussianDistribution" else "state-dependent std"
        raise ConfigError(f"env.task: its rsl_rl cfg asks for a {asked}, {_INSTEAD}")
