"""rsl_rl's configuration in our knobs: every key, every note, every refusal."""

import copy
from typing import Any

import pytest

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import settings_from_rsl_rl
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError

# Every value differs from rsl_rl's default and from ours, so that none can be ignored unseen.
CFG: dict[str, Any] = {
    "seed": 42,
    "num_steps_per_env": 21,
    "max_iterations": 1234,
    "save_interval": 77,
    "experiment_name": "some_task",
    "run_name": "ignored",
    "logger": "wandb",
    "clip_actions": 5.5,
    "obs_groups": {"actor": ("policy",), "critic": ("policy", "privileged")},
    "actor": {
        "class_name": "MLPModel",
        "hidden_dims": (33, 22),
        "activation": "relu",
        "obs_normalization": False,
        "cnn_cfg": None,
        "rnn_type": None,
        "distribution_cfg": {
            "class_name": "GaussianDistribution",
            "init_std": 0.7,
            "std_type": "log",
        },
    },
    "critic": {
        "class_name": "MLPModel",
        "hidden_dims": (44,),
        "activation": "relu",
        "obs_normalization": False,
        "cnn_cfg": None,
        "rnn_type": None,
        "distribution_cfg": None,
    },
    "algorithm": {
        "class_name": "PPO",
        "num_learning_epochs": 3,
        "num_mini_batches": 6,
        "learning_rate": 2e-4,
        "schedule": "fixed",
        "gamma": 0.97,
        "lam": 0.91,
        "entropy_coef": 0.003,
        "desired_kl": 0.02,
        "max_grad_norm": 0.5,
        "value_loss_coef": 2.0,
        "use_clipped_value_loss": True,
        "clip_param": 0.25,
        "normalize_advantage_per_mini_batch": True,
        "optimizer": "RMSprop",  # rsl_rl reads it in small letters
    },
}


def changed_cfg(path: str, value: Any) -> dict[str, Any]:
    cfg = copy.deepcopy(CFG)
    node = cfg
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    return cfg


def test_every_key_arrives_in_its_knob() -> None:
    settings, notes = settings_from_rsl_rl(CFG)
    assert notes == ()
    assert settings == {
        "experiment": {"name": "some_task", "max_iterations": 1234},
        "rollout": {"steps_per_env": 21},
        "ppo": {
            "update_epochs": 3,
            "num_mini_batches": 6,
            "lr": 2e-4,
            "lr_schedule": "fixed",
            "gamma": 0.97,
            "lam": 0.91,
            "entropy_coef": 0.003,
            "desired_kl": 0.02,
            "max_grad_norm": 0.5,
            "value_coef": 2.0,
            "value_clip": 0.25,  # rsl_rl clips the value by the ratio's bound
            "clip": 0.25,
            "normalize_advantages_per_mini_batch": True,
            "optimizer": "rmsprop",
        },
        "policy": {
            "hidden_dims": [33, 22],
            "critic_hidden_dims": [44],
            "activation": "relu",
            "init_std": 0.7,
            "std_type": "log",
            "normalize_obs": False,
            "normalize_critic_obs": False,
            "clip_actions": 5.5,
            "obs_groups": {"actor": ["policy"], "critic": ["policy", "privileged"]},
        },
        "checkpoint": {"every": 77},
    }


def test_the_settings_are_knobs_that_load() -> None:
    settings, _ = settings_from_rsl_rl(CFG)
    config = load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    complete(config, 64, ())
    assert config.experiment.name == "some_task"
    assert (config.ppo.lr, config.ppo.num_mini_batches) == (2e-4, 6)
    assert config.policy.obs_groups == {"actor": ["policy"], "critic": ["policy", "privileged"]}
    assert config.checkpoint.every == 77


def test_what_the_user_types_beats_the_task() -> None:
    settings, _ = settings_from_rsl_rl(CFG)
    user = {"env": {"kind": "mjlab", "task": "X"}, "ppo": {"lr": 1e-3, "batch_size": 64}}
    config = load_run_config(user, ["ppo.lr=1e-3", "ppo.batch_size=64"], settings)
    complete(config, 64, ["ppo.lr=1e-3", "ppo.batch_size=64"])
    assert (config.ppo.lr, config.ppo.batch_size, config.ppo.gamma) == (1e-3, 64, 0.97)


def test_an_unclipped_value_loss_is_a_null_value_clip() -> None:
    settings, _ = settings_from_rsl_rl(changed_cfg("algorithm.use_clipped_value_loss", False))
    assert settings["ppo"]["value_clip"] is None
    assert settings["ppo"]["clip"] == 0.25


def test_a_missing_algorithm_key_leaves_our_default() -> None:
    cfg = copy.deepcopy(CFG)
    del cfg["algorithm"]["lam"]
    assert "lam" not in settings_from_rsl_rl(cfg)[0]["ppo"]


def test_without_a_distribution_cfg_rsl_rls_defaults_hold() -> None:
    policy = settings_from_rsl_rl(changed_cfg("actor.distribution_cfg", None))[0]["policy"]
    assert (policy["init_std"], policy["std_type"]) == (1.0, "scalar")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("critic.activation", "tanh", "activation"),
    ],
)
def test_what_has_no_counterpart_here_is_told(path: str, value: Any, says: str) -> None:
    _, notes = settings_from_rsl_rl(changed_cfg(path, value))
    assert len(notes) == 1 and says in notes[0] and "\n" not in notes[0]


@pytest.mark.parametrize("key", ["rnd_cfg", "symmetry_cfg"])
def test_extensions_that_are_switched_off_need_no_note(key: str) -> None:
    assert settings_from_rsl_rl(changed_cfg(f"algorithm.{key}", None))[1] == ()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("algorithm.rnd_cfg", {"weight": 1.0}, "random network distillation"),
        ("algorithm.symmetry_cfg", {"use_data_augmentation": True}, "symmetry"),
        ("algorithm.symmetry_cfg", {"use_mirror_loss": True}, "symmetry"),
        ("class_name", "DistillationRunner", "distillation"),
        ("algorithm.class_name", "Distillation", "distillation"),
    ],
)
def test_algorithms_we_do_not_have_are_refused(path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^env\.task: .*{says}.*env\.agent=none"):
        settings_from_rsl_rl(changed_cfg(path, value))


def test_the_layout_of_isaac_lab_2_says_the_same() -> None:
    cfg = copy.deepcopy(CFG)
    del cfg["actor"], cfg["critic"]
    cfg["obs_groups"] = {"policy": ["policy"], "critic": ["policy", "privileged"]}
    cfg["empirical_normalization"] = False
    cfg["policy"] = {
        "class_name": "ActorCritic",
        "init_noise_std": 0.7,
        "noise_std_type": "log",
        "actor_hidden_dims": [33, 22],
        "critic_hidden_dims": [44],
        "activation": "relu",
    }
    assert settings_from_rsl_rl(cfg) == settings_from_rsl_rl(CFG)
    cfg["empirical_normalization"] = True
    assert settings_from_rsl_rl(cfg)[0]["policy"]["normalize_critic_obs"] is True
    cfg["policy"]["rnn_type"] = "lstm"
    with pytest.raises(ConfigError, match="a recurrent actor"):
        settings_from_rsl_rl(cfg)


@pytest.mark.parametrize(
    ("asked", "groups", "chosen"),
    [
        ({}, None, None),  # by name, once the env is there
        ({}, ["policy"], {"actor": ["policy"], "critic": ["policy"]}),
        ({}, ["policy", "critic"], {"actor": ["policy"], "critic": ["critic"]}),
        ({"actor": ["a", "b"]}, ["a", "b", "policy"], {"actor": ["a", "b"], "critic": ["policy"]}),
        ({"policy": ["a"]}, None, {"actor": ["a"]}),
    ],
)
def test_missing_obs_groups_are_the_group_of_that_name_else_policy(
    asked: Any, groups: Any, chosen: Any
) -> None:
    cfg = changed_cfg("obs_groups", asked)
    assert settings_from_rsl_rl(cfg, groups)[0]["policy"]["obs_groups"] == chosen


@pytest.mark.parametrize("role", ["actor", "critic"])
@pytest.mark.parametrize(
    ("key", "value", "what"),
    [("rnn_type", "lstm", "recurrent"), ("cnn_cfg", {"output_channels": [8]}, "convolutional")],
)
def test_networks_we_do_not_have_are_refused(role: str, key: str, value: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=rf"^env\.task: .*a {what} {role} .*not supported"):
        settings_from_rsl_rl(changed_cfg(f"{role}.{key}", value))


def test_a_state_dependent_std_is_not_taken_for_a_plain_gaussian() -> None:
    cfg = changed_cfg("actor.distribution_cfg.class_name", "HeteroscedasticGaussianDistribution")
    try:
        _, notes = settings_from_rsl_rl(cfg)
    except ConfigError as e:
        notes = (str(e),)
    assert len(notes) == 1 and "HeteroscedasticGaussianDistribution" in notes[0]


def test_every_task_of_mjlab_that_is_ours_maps_to_knobs_that_load() -> None:
    registry = pytest.importorskip("mjlab.tasks.registry")
    pytest.importorskip("mjlab.tasks")
    from dataclasses import asdict

    for task in (
        "Mjlab-Cartpole-Balance",
        "Mjlab-Cartpole-Swingup",
        "Mjlab-Velocity-Flat-Unitree-Go1",
        "Mjlab-Velocity-Rough-Unitree-Go1",
    ):
        settings, _ = settings_from_rsl_rl(asdict(registry.load_rl_cfg(task)))
        config = load_run_config({"env": {"kind": "mjlab", "task": task}}, (), settings)
        complete(config, 64, ())
        assert config.rollout.steps_per_env == settings["rollout"]["steps_per_env"]
