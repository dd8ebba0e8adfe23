"""Every wrong input is refused in one line that names its key."""

import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import EnvConfig, RunConfig
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.envs.registry import describe_task, needs_simulator
from isaac_hydra_ext.errors import ConfigError, EnvNotFoundError

DEFAULTS = "env.trainer_defaults"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        return compose("train_appo", list(overrides))


def loaded(*overrides: str, task_settings: dict[str, Any] | None = None) -> RunConfig:
    """What the runner makes of a command line, up to the first process."""
    config = load_run_config(composed(*overrides), overrides, task_settings)
    if not needs_simulator(config.env):
        describe_task(config.env)
    complete(config, 32, overrides)
    return config


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(*overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("rollout.num_workers=-1", "rollout.num_workers=-1: must be at least 0"),
        ("rollout.num_workers=many", "rollout.num_workers=many: must be a number or auto"),
        ("rollout.steps_per_env=0", "rollout.steps_per_env=0: must be at least 1"),
        ("rollout.envs_per_worker=0", "rollout.envs_per_worker=0: must be at least 1"),
        ("rollout.max_policy_lag=-1", "rollout.max_policy_lag=-1: must be at least 0"),
        ("rollout.startup_timeout_s=0", "rollout.startup_timeout_s=0.0: must be greater than 0"),
        ("ppo.batch_size=0", "ppo.batch_size=0: must be at least 1"),
        ("ppo.num_mini_batches=0", "ppo.num_mini_batches=0: must be at least 1"),
        ("ppo.gamma=1.5", "ppo.gamma=1.5: must be at most 1"),
        ("ppo.lam=-0.5", "ppo.lam=-0.5: must be at least 0"),
        ("ppo.lr=0", "ppo.lr=0.0: must be greater than 0"),
        ("ppo.max_importance_weight=0.5", "ppo.max_importance_weight=0.5: must be at least 1"),
        ("policy.hidden_dims=[64,0]", "policy.hidden_dims=0: must be at least 1"),
        ("experiment.seed=-2", "experiment.seed=-2: must be at least -1"),
        ("checkpoint.keep_last=-1", "checkpoint.keep_last=-1: must be at least 0"),
    ],
)
def test_numbers_out_of_bounds(override: str, says: str) -> None:
    assert refusal(override) == says


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("policy.encoders=camera", "a mapping is expected here: {NAME: VALUE}"),
        ("env.kwargs=[3]", "a mapping is expected here: {NAME: VALUE}"),
        ("policy.obs_groups=3", "a mapping is expected here: {NAME: VALUE}"),
        ("policy.hidden_dims=64", "a list is expected here, in brackets: [A,B]"),
        ("rollout.frame_stack=[4]", "one value is expected here"),
        ("policy.share_encoders=2", "true or false is expected here"),
        ("rollout.frame_stack=null", "not possible here; leave it out"),
        ("policy.encoders=null", "not possible here; leave it out"),
    ],
)
def test_a_list_a_mapping_or_null_where_it_cannot_be(override: str, wanted: str) -> None:
    assert refusal(override) == f"{override}: {wanted}"


def test_a_list_in_a_mapping_is_asked_for_by_its_key() -> None:
    said = refusal("policy.obs_groups={actor: policy}")
    assert said == "policy.obs_groups.actor: a list is expected here, in brackets: [A,B]"


@pytest.mark.parametrize(
    "key", ["ppo.gamma", "ppo.lr", "ppo.stop_kl", "ppo.clip", "policy.init_std", "ppo.value_coef"]
)
def test_nan_is_outside_every_bound(key: str) -> None:
    assert refusal(f"{key}=nan").startswith(f"{key}=nan: must be")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("ppo.lr=fast", "ppo.lr"),
        ("rollout.steps_per_env=2.5", "rollout.steps_per_env"),
        ("rollout.deterministic=perhaps", "rollout.deterministic"),
        ("rollout.num_workers=1.5", "rollout.num_workers"),
        ("rollout.num_workers=true", "rollout.num_workers"),
        ("ppo.lr=null", "ppo.lr"),
        ("policy.hidden_dims=64", "policy.hidden_dims"),
        ("policy.hidden_dims=[64,wide]", "policy.hidden_dims"),
        ("policy.obs_groups=[policy]", "policy.obs_groups"),
        ("env.kwargs=3", "env.kwargs"),
        ("env.trainer_defaults=3", "env.trainer_defaults"),
        ("env.imports=gymnasium", "env.imports"),
    ],
)
def test_values_of_the_wrong_type(override: str, key: str) -> None:
    assert refusal(override).startswith(key)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ppo.lr_schedule=adaptiv", "ppo.lr_schedule=adaptiv: must be one of adaptive, fixed"),
        ("policy.activation=elo", "did you mean 'elu'"),
        ("policy.squash=sigmoid", "policy.squash=sigmoid: must be one of none, tanh"),
        ("logging.backends=[tensorbord]", "did you mean 'tensorboard'"),
        ("env.kind=mujoco", "env.kind=mujoco: must be one of gym, mjlab"),
    ],
)
def test_choices_name_the_nearest_one(override: str, says: str) -> None:
    message = refusal(override)
    assert message.startswith(override.split("=")[0]) and says in message


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("+ppo.learning_rate=1", "ppo.learning_rate: unknown key"),
        ("+rollout.num_worker=2", "rollout.num_worker: unknown key; did you mean 'num_workers'"),
        ("+roloult.num_workers=2", "roloult: unknown key; did you mean 'rollout'?"),
        (f"+{DEFAULTS}.ppo.gama=1", f"{DEFAULTS}.ppo.gama: unknown key; did you mean 'gamma'"),
        (f"+{DEFAULTS}.pp={{}}", f"{DEFAULTS}.pp: unknown key; did you mean 'ppo'"),
        (f"{DEFAULTS}.policy=3", f"{DEFAULTS}.policy=3: a group of keys is expected here"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_name(override: str, says: str) -> None:
    assert refusal(override).startswith(says)


def test_a_group_that_is_no_group() -> None:
    with pytest.raises(ConfigError, match=r"^ppo=3: a group of keys is expected here$"):
        load_run_config({"ppo": 3})


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("+env._target_=os.system", "env._target_"),
        ("+env.kwargs._target_=os.system", "env.kwargs._target_"),
        ("+env.kwargs={a: [{b: {_target_: os.system}}]}", "env.kwargs.a.0.b._target_"),
        ("+env.trainer_defaults.policy._target_=os.system", "env.trainer_defaults.policy._target_"),
        ("+_target_=os.system", "_target_"),
    ],
)
def test_targets_are_refused_anywhere(override: str, path: str) -> None:
    assert refusal(override).startswith(f"{path}='os.system': not accepted")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../a", "/tmp/x", "a\\b", "a\nb", "a\x00"])
@pytest.mark.parametrize("key", ["name", "run_name"])
def test_a_run_name_that_leaves_its_directory(key: str, name: str) -> None:
    cfg = composed("env=gym_pendulum")
    cfg.experiment[key] = name
    with pytest.raises(ConfigError, match=rf"^experiment\.{key}=.*plain directory name") as caught:
        load_run_config(cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("experiment.device=gpu", "experiment.device=gpu: not a device"),
        ("experiment.device=cuda:99", "experiment.device=cuda:99: PyTorch sees"),
        ("rollout.device=cuda:99", "rollout.device=cuda:99: PyTorch sees"),
        ("experiment.device=mps", "experiment.device=mps: not supported"),
        ("experiment.device=''", "experiment.device=: not a device"),
    ],
)
def test_a_device_that_does_not_exist(override: str, says: str) -> None:
    assert refusal(override).startswith(says)


def test_precisions_that_need_a_gpu_are_refused_without() -> None:
    message = refusal("experiment.device=cpu", "ppo.precision=bf16")
    assert message == "ppo.precision=bf16: needs a CUDA learner; use fp32"


@pytest.mark.parametrize(
    "other",
    ["rollout.num_workers=0", "rollout.deterministic=true", "rollout.on_worker_failure=stop"],
)
def test_replacing_workers_for_their_numbers_needs_workers_to_replace(other: str) -> None:
    typed = ("rollout.num_workers=2", "rollout.on_invalid=restart_worker")
    loaded(*typed)
    assert refusal(*typed, other).startswith("rollout.on_invalid=restart_worker: needs workers")


def test_an_output_dir_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below", Path("/proc/appo/runs")):
        message = refusal(f"experiment.output_dir={path}")
        assert message.startswith(f"experiment.output_dir={path}: cannot write there")


def test_checking_an_output_dir_makes_nothing(tmp_path: Path) -> None:
    loaded(f"experiment.output_dir={tmp_path}/a/b")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["env=gym_any"], "env.id: missing"),
        (["env=mjlab_any"], "env.task: missing"),
        (["env=gym_any", "env.id=null"], "env.id: missing for env.kind=gym"),
        (["env=gym_pendulum", "env.kind=mjlab"], "env.task: missing for env.kind=mjlab (env.id"),
    ],
)
def test_an_environment_that_is_not_named(overrides: list[str], says: str) -> None:
    assert refusal(*overrides).startswith(says)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["policy.std_range=[0.5,0.1]"], "policy.std_range=[0.5, 0.1]: must be the least and"),
        (["policy.std_range=[0.1]"], "policy.std_range=[0.1]: must be the least and"),
        (["policy.std_range=[0.1,0.5]"], "policy.init_std=1: outside of policy.std_range=[0.1,"),
        (["policy.distribution=normal"], "policy.distribution=normal: must be one of gaussian,"),
        (["policy.distribution=beta", "policy.squash=tanh"], "policy.squash=tanh: Beta's actions"),
        (["policy.distribution=beta", "policy.std_range=[0.1,2]"], "policy.std_range: Beta has"),
        (["policy.distribution=beta", "policy.learn_std=false"], "policy.learn_std=false: the std"),
        (["policy.critic_activation=rlu"], "policy.critic_activation=rlu: must be one of"),
    ],
)
def test_a_distribution_that_there_is_not(overrides: list[str], says: str) -> None:
    assert refusal("env=gym_pendulum", *overrides).startswith(says)


@pytest.mark.parametrize(
    ("env_id", "near"),
    [("Pendulum-v9", ""), ("Pendulm-v1", "Pendulum-v1"), ("cartpole-v1", "CartPole-v1")],
)
def test_an_id_that_is_not_registered_names_near_ones(env_id: str, near: str) -> None:
    message = refusal("env=gym_any", f"env.id={env_id}")
    assert message.startswith(f"env.id={env_id}: not registered with Gymnasium")
    assert near in message


def test_a_module_in_an_id_that_cannot_be_imported() -> None:
    config = EnvConfig(id="no_such_package:Foo-v0")
    with pytest.raises(EnvNotFoundError, match=r"^env\.id=no_such_package:Foo-v0: cannot import"):
        describe_task(config)


def test_an_unregistered_id_is_the_errors_own_class() -> None:
    with pytest.raises(EnvNotFoundError):
        loaded("env=gym_any", "env.id=Nothing-v0")


def test_a_resume_from_nowhere(tmp_path: Path) -> None:
    message = refusal(f"resume={tmp_path}/missing")
    assert message.startswith(f"resume={tmp_path}/missing: no such file or directory")


def test_an_interpolation_to_nowhere_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^ppo\.lr: ") as caught:
        load_run_config(OmegaConf.create({"ppo": {"lr": "${nowhere}"}}))
    assert "\n" not in str(caught.value)
