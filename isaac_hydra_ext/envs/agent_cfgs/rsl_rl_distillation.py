"""rsl_rl's cfg of a student, in this package's knobs.

Runs in worker 0 during `describe`. rsl_rl 4 and 5 name a `student` and a `teacher`; before, both
are in one `policy` (`StudentTeacher`, `StudentTeacherRecurrent`). What the teacher's networks are
its own checkpoint says.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.rsl_rl_models import class_name

# rsl_rl's algorithm key -> ours, in section `distillation`.
STUDENT_KEYS = {
    "num_learning_epochs": "update_epochs",
    "gradient_length": "gradient_length",
    "learning_rate": "lr",
    "max_grad_norm": "max_grad_norm",
    "optimizer": "optimizer",
    "loss_type": "loss",
}


# One `policy` of both -> the same without a teacher.
MODELS = {"StudentTeacher": "ActorCritic", "StudentTeacherRecurrent": "ActorCriticRecurrent"}
RUNNER, ALGORITHM = "DistillationRunner", "Distillation"


def is_distillation(cfg: Mapping[str, Any]) -> bool:
    """Return whether an rsl_rl runner cfg, as plain data, is a student's."""
    parts = (cfg, cfg.get("algorithm") or {}, cfg.get("policy") or {})
    names = {class_name(part.get("class_name")) for part in parts}
    return bool(names & {RUNNER, ALGORITHM, *MODELS})


def as_actors(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cfg of a PPO runner whose actor, and critic, is the student.

    Classes of the task's own keep their names, to be refused as any are.
    """
    policy, sets = dict(cfg.get("policy") or {}), cfg.get("obs_groups") or {}
    seen = sets.get("student") or sets.get("policy")
    kind = class_name(cfg["algorithm"].get("class_name"))
    as_ppo = {key: value for key, value in cfg.items() if key not in ("student", "teacher")}
    as_ppo["class_name"] = "OnPolicyRunner"
    as_ppo["algorithm"] = {"class_name": "PPO" if kind in ("", ALGORITHM) else kind}
    as_ppo["obs_groups"] = {"actor": seen, "critic": seen} if seen else {}
    if student := cfg.get("student"):
        return as_ppo | {"actor": dict(student), "critic": dict(student)}
    name = class_name(policy.pop("class_name", ""))
    shared = {k: v for k, v in policy.items() if not k.startswith(("student_", "teacher_"))}
    own = {k.removeprefix("student_"): v for k, v in policy.items() if k.startswith("student_")}
    both = {f"{role}_{key}": value for role in ("actor", "critic") for key, value in own.items()}
    return as_ppo | {"policy": {"class_name": MODELS.get(name, name), **shared, **both}}


def student_settings(
    settings: Mapping[str, Any], cfg: Mapping[str, Any], groups: Sequence[str] | None
) -> dict[str, Any]:
    """Return a student's settings.

    Args:
        settings: Of `as_actors(cfg)`.
        cfg: rsl_rl's.
        groups: Names of the env's obs groups, where they are known by now.
    """
    algorithm, sets = cfg["algorithm"], cfg.get("obs_groups") or {}
    own = {ours: algorithm[theirs] for theirs, ours in STUDENT_KEYS.items() if theirs in algorithm}
    if sets.get("teacher"):
        own["teacher_groups"] = list(sets["teacher"])
    elif groups:
        own["teacher_groups"] = ["teacher" if "teacher" in groups else "policy"]
    policy = {k: v for k, v in settings["policy"].items() if "critic" not in k}
    if policy.get("obs_groups"):
        policy["obs_groups"] = {"actor": policy["obs_groups"]["actor"]}
    others = {name: section for name, section in settings.items() if name != "ppo"}
    return {
        **others,
        "policy": policy,
        "algorithm": {"kind": "distillation"},
        "distillation": own,
    }
