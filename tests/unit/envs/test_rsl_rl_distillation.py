"""rsl_rl's cfg of a student: the layout of rsl_rl 5, and the older one."""

from typing import Any

import pytest

from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import settings_from_rsl_rl
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError

RUNNER: dict[str, Any] = {
    "class_name": "DistillationRunner",
    "num_steps_per_env": 120,
    "max_iterations": 300,
    "save_interval": 50,
    "experiment_name": "anymal_d_flat",
    "algorithm": {
        "class_name": "Distillation",
        "num_learning_epochs": 2,
        "learning_rate": 2e-3,
        "gradient_length": 12,
        "max_grad_norm": 0.5,
        "optimizer": "adamw",
        "loss_type": "huber",
    },
}
NOISE = {"class_name": "GaussianDistribution", "init_std": 0.1, "std_type": "log"}
NEW = {
    **RUNNER,
    "obs_groups": {"student": ["policy"], "teacher": ["policy", "privileged"]},
    "student": {
        "class_name": "MLPModel", "hidden_dims": [12, 8], "activation": "relu",
        "obs_normalization": True, "distribution_cfg": NOISE,
    },
    "teacher": {"class_name": "MLPModel", "hidden_dims": [128], "activation": "elu"},
}  # fmt: skip
OLD = {
    **RUNNER,
    "obs_groups": {"policy": ["policy"], "teacher": ["policy", "privileged"]},
    "policy": {
        "class_name": "StudentTeacher", "init_noise_std": 0.1, "noise_std_type": "log",
        "student_obs_normalization": True, "teacher_obs_normalization": False,
        "student_hidden_dims": [12, 8], "teacher_hidden_dims": [128], "activation": "relu",
    },
}  # fmt: skip


@pytest.mark.parametrize("cfg", [NEW, OLD], ids=["new", "old"])
def test_both_layouts_say_the_same(cfg: dict[str, Any]) -> None:
    settings, notes = settings_from_rsl_rl(cfg)
    assert notes == ()
    assert settings["algorithm"] == {"kind": "distillation"}
    assert settings["distillation"] == {
        "update_epochs": 2, "lr": 2e-3, "gradient_length": 12, "max_grad_norm": 0.5,
        "optimizer": "adamw", "loss": "huber", "teacher_groups": ["policy", "privileged"],
    }  # fmt: skip
    assert settings["rollout"] == {"steps_per_env": 120} and "ppo" not in settings
    policy = settings["policy"]
    assert policy["obs_groups"] == {"actor": ["policy"]} and policy["hidden_dims"] == [12, 8]
    assert (policy["activation"], policy["normalize_obs"]) == ("relu", True)
    assert (policy["init_std"], policy["std_type"]) == (0.1, "log")
    assert not [name for name in policy if "critic" in name]


@pytest.mark.parametrize(
    ("groups", "chosen"), [(["policy", "teacher"], ["teacher"]), (["policy"], ["policy"])]
)
def test_a_teacher_without_a_set_reads_its_group_else_the_policys(
    groups: list[str], chosen: list[str]
) -> None:
    settings, _ = settings_from_rsl_rl({**NEW, "obs_groups": {}}, groups)
    assert settings["distillation"]["teacher_groups"] == chosen


def test_the_teacher_is_to_be_named_and_the_settings_are_a_run() -> None:
    settings, _ = settings_from_rsl_rl(NEW)
    with pytest.raises(ConfigError, match="distillation.teacher: missing; name the run"):
        load_run_config({"env": {"id": "Pendulum-v1"}}, (), settings)
    typed = {"env": {"id": "Pendulum-v1"}, "distillation": {"teacher": "."}}
    config = load_run_config(typed, (), settings)
    assert config.has_teacher and config.distillation.gradient_length == 12


@pytest.mark.parametrize("where", ["algorithm", "student"])
def test_a_class_of_the_tasks_own_is_refused(where: str) -> None:
    cfg = {**NEW, where: {**NEW[where], "class_name": "my_task.distill:Own"}}
    with pytest.raises(ConfigError, match="my_task.distill:Own.*own"):
        settings_from_rsl_rl(cfg)


@pytest.mark.parametrize("layout", ["new", "old"])
def test_a_student_with_a_memory_has_one_here(layout: str) -> None:
    memory = {"rnn_type": "gru", "rnn_hidden_dim": 24, "rnn_num_layers": 2}
    if layout == "new":
        cfg = {**NEW, "student": {**NEW["student"], "class_name": "RNNModel", **memory}}
    else:
        name = {"class_name": "StudentTeacherRecurrent", "teacher_recurrent": True}
        cfg = {**OLD, "policy": {**OLD["policy"], **name, **memory}}
    settings, notes = settings_from_rsl_rl(cfg)
    assert settings["policy"]["recurrent"] == {"kind": "gru", "hidden": 24, "layers": 2}
    assert notes == ()
