"""rsl_rl's configuration in our knobs: every key, every note, every refusal."""

import copy
from typing import Any

import pytest

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import settings_from_rsl_rl
from isaac_hydra_ext.envs.loading import load_run_config

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
    "init_at_random_ep_len": False,
    "check_for_nan": True,
    "torch_compile_mode": None,
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
            "std_range": (0.1, 2.0),
            "learn_std": False,
        },
    },
    "critic": {
        "class_name": "rsl_rl.models:MLPModel",
        "hidden_dims": (44,),
        "activation": "tanh",
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
        "use_mixed_precision": False,
        "share_cnn_encoders": False,
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
        "rollout": {"steps_per_env": 21, "init_at_random_ep_len": False},
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
            "critic_activation": "tanh",
            "distribution": "gaussian",
            "init_std": 0.7,
            "std_type": "log",
            "std_range": [0.1, 2.0],
            "learn_std": False,
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


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("algorithm.use_mixed_precision", True, "algorithm.use_mixed_precision=True: fp32 here"),
        ("torch_compile_mode", "default", "torch_compile_mode=default: ppo.compile"),
        ("check_for_nan", False, "check_for_nan=False: looked for here too"),
        ("algorithm.of_a_fork", 3, "algorithm.of_a_fork=3: has no counterpart here"),
        ("actor.of_a_fork", 3, "actor.of_a_fork=3: has no counterpart here"),
        ("actor.distribution_cfg.of_a_fork", 3, "actor.distribution_cfg.of_a_fork=3: has no"),
        ("of_a_fork", {"a": 1}, "of_a_fork={'a': 1}: has no counterpart here"),
    ],
)
def test_what_has_no_counterpart_here_is_told(path: str, value: Any, says: str) -> None:
    _, notes = settings_from_rsl_rl(changed_cfg(path, value))
    assert len(notes) == 1 and notes[0].startswith(f"rsl_rl's {says}") and "\n" not in notes[0]


def test_symmetry_has_rsl_rls_names() -> None:
    asked = {
        "use_data_augmentation": True, "use_mirror_loss": True, "mirror_loss_coeff": 0.2,
        "data_augmentation_func": "pkg.mdp:mirrored", "class_name": "ignored",
    }  # fmt: skip
    settings, _ = settings_from_rsl_rl(changed_cfg("algorithm.symmetry_cfg", asked))
    del asked["class_name"]
    assert settings["ppo"]["symmetry"] == asked
    config = load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    assert config.ppo.symmetry.data_augmentation_func == "pkg.mdp:mirrored"
    asked |= {"use_data_augmentation": False, "use_mirror_loss": False}
    settings, _ = settings_from_rsl_rl(changed_cfg("algorithm.symmetry_cfg", asked))
    assert "symmetry" not in settings["ppo"]


def test_curiosity_has_rsl_rls_names() -> None:
    asked = {
        "weight": 0.5, "weight_schedule": None, "reward_normalization": True,
        "state_normalization": True, "learning_rate": 1e-4, "num_outputs": 4,
        "predictor_hidden_dims": [8, 8], "target_hidden_dims": [-1], "activation": "relu",
    }  # fmt: skip
    cfg = changed_cfg("algorithm.rnd_cfg", {**asked, "class_name": "Rnd"})
    cfg["obs_groups"]["rnd_state"] = ("policy", "privileged")
    settings, notes = settings_from_rsl_rl(cfg)
    groups = {"obs_groups": ["policy", "privileged"]}
    assert settings["ppo"]["terms"] == {"rnd": {**asked, **groups}}
    assert len(notes) == 1 and "rnd_cfg.class_name=Rnd: has no counterpart here" in notes[0]
    schedule = {"mode": "linear", "initial_step": 2, "final_step": 9, "final_value": 0.1}
    cfg["algorithm"]["rnd_cfg"] = {"weight": 0.5, "weight_schedule": schedule}
    settings, _ = settings_from_rsl_rl(cfg)
    config = load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    assert config.ppo.terms["rnd"] == {"weight": 0.5, "weight_schedule": schedule, **groups}


@pytest.mark.parametrize("key", ["rnd_cfg", "symmetry_cfg"])
def test_extensions_that_are_switched_off_need_no_note(key: str) -> None:
    assert settings_from_rsl_rl(changed_cfg(f"algorithm.{key}", None))[1] == ()


def older(**policy: Any) -> dict[str, Any]:
    """As rsl_rl 1 to 3 have it, saying what `plain` says."""
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
        **policy,
    }
    return cfg


def plain() -> dict[str, Any]:
    """`CFG` without what older layouts cannot say."""
    cfg = changed_cfg("critic.activation", "relu")
    for key in ("std_range", "learn_std"):
        del cfg["actor"]["distribution_cfg"][key]
    return cfg


def test_the_layout_of_isaac_lab_2_says_the_same() -> None:
    cfg = older()
    assert settings_from_rsl_rl(cfg) == settings_from_rsl_rl(plain())
    cfg["empirical_normalization"] = True
    assert settings_from_rsl_rl(cfg)[0]["policy"]["normalize_critic_obs"] is True
    separate = older(actor_obs_normalization=True, critic_obs_normalization=False)
    policy = settings_from_rsl_rl(separate)[0]["policy"]
    assert (policy["normalize_obs"], policy["normalize_critic_obs"]) == (True, False)
    wide = settings_from_rsl_rl(older(state_dependent_std=True))[0]["policy"]
    assert wide["distribution"] == "heteroscedastic"


def test_the_layout_of_rsl_rl_1_says_the_same() -> None:
    cfg = older()
    del cfg["policy"]["class_name"]
    names = ("num_steps_per_env", "max_iterations", "save_interval", "experiment_name", "run_name")
    cfg["runner"] = {name: cfg.pop(name) for name in names}
    cfg["runner"] |= {"policy_class_name": "ActorCritic", "algorithm_class_name": "PPO"}
    assert settings_from_rsl_rl(cfg) == settings_from_rsl_rl(plain())


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


def test_every_task_of_mjlab_maps_to_knobs_that_load() -> None:
    registry = pytest.importorskip("mjlab.tasks.registry")
    pytest.importorskip("mjlab.tasks")
    from dataclasses import asdict

    for task in registry.list_tasks():
        settings, notes = settings_from_rsl_rl(asdict(registry.load_rl_cfg(task)))
        assert notes == ()
        config = load_run_config({"env": {"kind": "mjlab", "task": task}}, (), settings)
        complete(config, 64, ())
        assert config.rollout.steps_per_env == settings["rollout"]["steps_per_env"]
