"""rsl_rl's configuration in our knobs: every key, every note, every refusal."""

import copy
from typing import Any

import pytest

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import settings_from_rsl_rl
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.networks import make_network

from ..builders import env_spec

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


def test_without_a_distribution_cfg_rsl_rls_defaults_hold() -> None:
    policy = settings_from_rsl_rl(changed_cfg("actor.distribution_cfg", None))[0]["policy"]
    assert (policy["init_std"], policy["std_type"]) == (1.0, "scalar")


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


OWN = "pkg.models:Net"


@pytest.mark.parametrize(
    ("path", "name", "says"),
    [
        ("actor.class_name", OWN, "(actor.class_name=pkg.models:Net) is a class of the task's own"),
        ("critic.class_name", OWN, "(critic.class_name=pkg.models:Net) is a class"),
        ("actor.class_name", "<class 'pkg.models.Net'>", "(actor.class_name=pkg.models:Net) is"),
        ("actor.distribution_cfg.class_name", OWN, "implement a Policy (`models/policy.py`)"),
        ("algorithm.class_name", OWN, "implement a Term (`learner/terms.py`) or an Algorithm"),
        ("class_name", OWN, "is a runner of the task's own: implement an Algorithm"),
        ("actor.class_name", "TransformerModel", "(actor.class_name=TransformerModel) is a class"),
    ],
)
def test_a_class_that_is_not_known_is_refused_and_says_what_to_implement(
    path: str, name: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from_rsl_rl(changed_cfg(path, name))
    message = str(caught.value)
    assert says in message and message.endswith("env.agent=none starts from this package's "
                                                "defaults instead")  # fmt: skip


def build(config: Any, role: str, num_inputs: int, num_outputs: int) -> Any:
    """Keeps the contract of `policy.network`."""
    import torch

    return torch.nn.Linear(num_inputs, num_outputs)


def test_a_class_that_keeps_our_contract_is_the_network() -> None:
    cfg = changed_cfg("actor.class_name", f"{__name__}:build")
    cfg["critic"]["class_name"] = f"{__name__}:build"
    settings, notes = settings_from_rsl_rl(cfg)
    assert settings["policy"]["network"] == f"{__name__}:build" and notes == ()
    config = load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    network = make_network(config.policy, "actor", 3, 2)
    assert type(network).__name__ == "Linear"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"class_name": "BetaDistribution"}, {"distribution": "beta", "clip_actions": 5.5}),
        (
            {"class_name": "BetaDistribution", "action_range": (-2.0, 2.0)},
            {"distribution": "beta", "clip_actions": 2.0},
        ),
        (
            {"class_name": "HeteroscedasticGaussianDistribution", "init_std": 0.4},
            {"distribution": "heteroscedastic", "init_std": 0.4, "std_range": None},
        ),
        # rsl_rl clamps what is outside
        ({"init_std": 5.0, "std_range": [0.1, 2.0]}, {"init_std": 2.0, "std_range": [0.1, 2.0]}),
    ],
)
def test_every_distribution_of_rsl_rl_is_ours(given: Any, expected: Any) -> None:
    settings, notes = settings_from_rsl_rl(changed_cfg("actor.distribution_cfg", given))
    assert notes == () and settings["policy"] | expected == settings["policy"]
    load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)


def test_a_std_bounded_by_a_sigmoid_is_a_clamped_one_and_told() -> None:
    name = "isaaclab_tasks.agents.rsl_rl_ppo_cfg:UR10ParticlePushGaussianDistribution"
    given = {"class_name": name, "init_std": 0.6, "std_range": (0.15, 0.65)}
    settings, notes = settings_from_rsl_rl(changed_cfg("actor.distribution_cfg", given))
    assert settings["policy"]["std_range"] == [0.15, 0.65]
    assert len(notes) == 1 and "its std is kept in std_range by clamping" in notes[0]


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


LSTM = {"rnn_type": "lstm", "rnn_hidden_dim": 128, "rnn_num_layers": 2}


def test_a_recurrent_model_has_a_memory() -> None:
    cfg = copy.deepcopy(CFG)
    for role in ("actor", "critic"):
        cfg[role] |= {"class_name": "RNNModel", **LSTM}
    settings, notes = settings_from_rsl_rl(cfg)
    expected = {"kind": "lstm", "hidden": 128, "layers": 2}
    assert settings["policy"]["recurrent"] == expected and notes == ()
    load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    cfg["critic"] = changed_cfg("seed", 0)["critic"]
    with pytest.raises(ConfigError, match="critic.rnn_type=None.* another memory than the actor's"):
        settings_from_rsl_rl(cfg)
    names = {"rnn_type": "lstm", "rnn_hidden_size": 128, "rnn_num_layers": 2}
    settings, _ = settings_from_rsl_rl(older(class_name="ActorCriticRecurrent", **names))
    assert settings["policy"]["recurrent"] == expected


CNN = {
    "output_channels": (8, 16), "kernel_size": (5, 3), "stride": 2, "dilation": 1,
    "padding": "zeros", "norm": "layer", "activation": "relu", "max_pool": False,
    "global_pool": "avg", "flatten": True,
}  # fmt: skip
OURS = {
    "kind": "cnn", "channels": [8, 16], "kernel": [5, 3], "stride": 2, "dilation": 1,
    "padding": "zeros", "norm": "layer", "activation": "relu", "max_pool": False, "pool": "avg",
}  # fmt: skip
KUKA = "isaaclab_tasks.core.lift.config.kuka_allegro.agents.models:SpatialSoftmaxCNNModel"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"class_name": "CNNModel", "cnn_cfg": CNN}, {"*": OURS}),
        ({"class_name": "CNNModel", "cnn_cfg": {"camera": CNN}}, {"camera": OURS}),
        (
            {"class_name": KUKA, "cnn_cfg": {**CNN, "global_pool": "none"}},
            {"*": {**OURS, "pool": "spatial_softmax"}},
        ),
    ],
)
def test_a_cnn_is_the_encoder_of_pictures(given: Any, expected: Any) -> None:
    cfg = copy.deepcopy(CFG)
    cfg["actor"] |= given
    settings, notes = settings_from_rsl_rl(cfg)
    assert settings["policy"]["encoders"] == expected
    assert [note.split(":")[0] for note in notes] == [
        "rsl_rl's actor.class_name=SpatialSoftmaxCNNModel" for _ in notes if "Spatial" in str(given)
    ]
    load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    cfg["critic"] |= {**given, "cnn_cfg": {**given["cnn_cfg"], "output_channels": [4]}}
    if given["class_name"] != KUKA and "camera" not in given["cnn_cfg"]:
        with pytest.raises(ConfigError, match="has other encoders of"):
            settings_from_rsl_rl(cfg)
    cfg["actor"]["cnn_cfg"] = {**CNN, "norm": "batch"}
    with pytest.raises(ConfigError, match=r"cnn_cfg\.norm=batch\) is not supported"):
        settings_from_rsl_rl(cfg)


def test_isaac_labs_shared_encoders_are_ours() -> None:
    cfg = copy.deepcopy(CFG)
    module = "isaaclab_tasks.contrib.keyboard.agents.models"
    encoder = {"hidden_dims": [256], "latent_dim": 64, "activation": "elu"}
    for role in ("actor", "critic"):
        cfg[role] |= {"class_name": f"{module}:SharedEncoderMLPModel",
                      "encoder_cfg": {"policy": {**encoder, "last_activation": "elu"}}}  # fmt: skip
    cfg["algorithm"]["class_name"] = f"{module}:SharedEncoderPPO"
    settings, notes = settings_from_rsl_rl(cfg)
    assert notes == () and settings["policy"]["share_encoders"] is True
    assert settings["policy"]["encoders"] == {
        "policy": {
            "kind": "mlp", "hidden_dims": [256], "features": 64, "activation": "elu",
            "last_activation": "elu",
        }
    }  # fmt: skip
    config = load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    obs = {"policy": ((5,), "float32"), "privileged": ((3,), "float32")}
    policy = ActorCritic(config.policy, env_spec(obs=obs), seed=0)
    assert [tuple(p.shape) for p in policy.shared_encoders.parameters()][0] == (256, 5)
    assert policy.critic[0].in_features == 64 + 3  # type: ignore[index]


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
