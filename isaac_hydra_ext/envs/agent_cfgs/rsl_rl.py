"""What a task's rsl_rl configuration says, in this package's knobs.

Tasks of mjlab and Isaac Lab are tuned for rsl_rl; the trainer starts from the same numbers. Runs in
worker 0 during `describe`. The layout read is rsl_rl 5's (`actor`, `critic`, `algorithm`); older
ones (`policy`, `empirical_normalization`), which Isaac Lab 2.x has, are rewritten to it first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.rsl_rl_distillation import (
    as_actors,
    is_distillation,
    student_settings,
)
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl_models import (
    class_name,
    policy_settings,
    with_two_models,
)
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl_terms import rnd_settings, symmetry_settings
from isaac_hydra_ext.envs.agent_cfgs.section import Section
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
# What says where a run goes, what it is called and how it is logged: the run's own knobs do.
_NOT_TRAINING = (
    "seed", "device", "run_name", "logger", "wandb_project", "wandb_tags", "upload_model",
    "neptune_project", "resume",
    "load_run", "load_checkpoint", "load_optimizer", "checkpoint", "store_code_state",
    "multi_gpu", "runner_class_name",
)  # fmt: skip
# PPO whose critic has the actor's encoders: `share_encoders`.
_SHARING_PPO = "isaaclab_tasks.contrib.keyboard.agents.models:SharedEncoderPPO"
_RUNNERS = ("", "OnPolicyRunner")
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
    if is_distillation(cfg):
        settings, notes = settings_from_rsl_rl(as_actors(cfg), groups)
        return student_settings(settings, cfg, groups), notes
    if not cfg.get("actor") and cfg.get("policy"):
        cfg = with_two_models(cfg)
    runner = Section("rsl_rl", cfg)
    algorithm = runner.part("algorithm")
    _refuse_other_algorithms(runner, algorithm)
    if not cfg.get("actor"):
        raise ConfigError(f"env.task: its rsl_rl cfg has no actor and no policy, {_INSTEAD}")
    actor, critic = runner.part("actor"), runner.part("critic")
    ppo = {
        ours: algorithm[theirs] for theirs, ours in ALGORITHM_KEYS.items() if theirs in algorithm
    }
    clipped = algorithm.get("use_clipped_value_loss", True)
    ppo["value_clip"] = algorithm.get("clip_param") if clipped else None
    if rnd := algorithm.part("rnd_cfg"):
        ppo["terms"] = {"rnd": rnd_settings(rnd, runner.get("obs_groups") or {})}
    if symmetry := symmetry_settings(algorithm.part("symmetry_cfg")):
        ppo["symmetry"] = symmetry
    if "optimizer" in algorithm:
        ppo["optimizer"] = str(algorithm["optimizer"]).lower()
    policy = policy_settings(actor, critic)
    clip = runner.get("clip_actions")
    if clip is not None:
        policy["clip_actions"] = min(clip, policy.get("clip_actions", clip))
    policy["obs_groups"] = _obs_groups(runner.get("obs_groups") or {}, groups)
    rollout = {"steps_per_env": runner["num_steps_per_env"]}
    if "init_at_random_ep_len" in runner:
        rollout["init_at_random_ep_len"] = runner["init_at_random_ep_len"]
    algorithm.expect("use_mixed_precision", False, "fp32 here; ppo.precision=bf16, on a GPU")
    if algorithm.get("share_cnn_encoders"):
        policy["share_encoders"] = True
    runner.expect("torch_compile_mode", None, "ppo.compile says what is compiled")
    runner.expect("check_for_nan", True, "looked for here too; rollout.on_invalid says what then")
    settings = {
        "experiment": {"name": runner["experiment_name"]},
        "rollout": rollout,
        "ppo": ppo,
        "policy": policy,
        "checkpoint": {"every": runner["save_interval"]},
    }
    settings["experiment"]["max_iterations"] = runner["max_iterations"]
    runner.ignore(*_NOT_TRAINING)
    for section in (actor, critic, algorithm, runner):
        section.done()
    return settings, tuple(runner.notes)


def is_rsl_rl(cfg: Mapping[str, Any]) -> bool:
    """Return whether plain data is an rsl_rl runner's cfg, and not another trainer's."""
    runner = cfg.get("runner") or cfg  # rsl_rl 1
    return isinstance(cfg.get("algorithm"), Mapping) and "num_steps_per_env" in runner


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


def _refuse_other_algorithms(runner: Section, algorithm: Section) -> None:
    """Refuse what is more than PPO."""
    kinds = class_name(runner.get("class_name")), class_name(algorithm.get("class_name"))
    if kinds[0] not in _RUNNERS:
        raise runner.refuse(
            "class_name", kinds[0], "is a runner of the task's own: implement an Algorithm "
            "(`learner/algorithm.py`), and register it as algorithm.kind"
        )  # fmt: skip
    if kinds[1] not in ("", "PPO", _SHARING_PPO):
        raise algorithm.refuse(
            "class_name", kinds[1], "is an algorithm of the task's own: implement a Term "
            "(`learner/terms.py`) or an Algorithm (`learner/algorithm.py`), and register it as "
            "ppo.terms or algorithm.kind"
        )  # fmt: skip
