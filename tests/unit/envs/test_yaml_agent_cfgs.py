"""PPO of rl_games' and skrl's YAML in our knobs: every key, every note, every refusal."""

import copy
import math
from typing import Any

import pytest

from isaac_hydra_ext.envs.agent_cfgs.choice import agent_key, settings_from, trainer_of
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError

RNN = {"name": "lstm", "units": 99, "layers": 2, "before_mlp": True, "concat_input": True}
# Every value differs from the trainer's default and from ours.
RL_GAMES: dict[str, Any] = {
    "params": {
        "seed": 0,
        "algo": {"name": "a2c_continuous"},
        "env": {"clip_actions": 0.7, "clip_observations": 5.0},
        "model": {"name": "continuous_a2c_logstd"},
        "network": {
            "name": "actor_critic",
            "separate": False,
            "space": {
                "continuous": {
                    "mu_activation": "None",
                    "sigma_activation": "None",
                    "mu_init": {"name": "default"},
                    "sigma_init": {"name": "const_initializer", "val": -1.0},
                    "fixed_sigma": False,
                }
            },
            "mlp": {
                "units": [33, 22],
                "activation": "relu",
                "d2rl": False,
                "initializer": {"name": "default"},
                "regularizer": {"name": "None"},
            },
            "rnn": RNN,
        },
        "load_checkpoint": False,
        "config": {
            "name": "some_task",
            "device": "cuda:0",
            "normalize_input": True,
            "normalize_value": True,
            "value_bootstrap": False,
            "mixed_precision": True,
            "num_actors": 128,
            "reward_shaper": {"scale_value": 0.1},
            "normalize_advantage": False,
            "gamma": 0.97,
            "tau": 0.91,
            "learning_rate": "2e-4",
            "lr_schedule": "adaptive",
            "schedule_type": "standard",
            "kl_threshold": 0.02,
            "max_epochs": 1234,
            "save_frequency": 77,
            "grad_norm": 0.5,
            "truncate_grads": True,
            "entropy_coef": 0.003,
            "e_clip": 0.25,
            "clip_value": True,
            "horizon_length": 21,
            "minibatch_size": 512,
            "mini_epochs": 3,
            "critic_coef": 3,
            "bounds_loss_coef": 0.0001,
            "central_value_config": {
                "learning_rate": "1e-3",
                "mini_epochs": 3,
                "normalize_input": True,
                "network": {
                    "name": "actor_critic",
                    "central_value": True,
                    "mlp": {"units": [44], "activation": "tanh"},
                    "rnn": RNN,
                },
            },
        },
    }
}
SKRL: dict[str, Any] = {
    "seed": 42,
    "models": {
        "separate": False,
        "policy": {
            "class": "GaussianMixin",
            "clip_actions": False,
            "clip_log_std": True,
            "min_log_std": -20.0,
            "max_log_std": 1.0,
            "initial_log_std": -1.0,
            "network": [
                {"name": "net", "input": "OBSERVATIONS", "layers": [33, 22], "activations": "relu"}
            ],
            "output": "ACTIONS",
        },
        "value": {
            "class": "DeterministicMixin",
            "clip_actions": False,
            "network": [{"name": "net", "input": "STATES", "layers": [44], "activations": "tanh"}],
            "output": "ONE",
        },
    },
    "memory": {"class": "RandomMemory", "memory_size": -1},
    "agent": {
        "class": "PPO",
        "rollouts": 20,
        "learning_epochs": 3,
        "mini_batches": 6,
        "discount_factor": 0.97,
        "lambda": 0.91,
        "learning_rate": 2e-4,
        "learning_rate_scheduler": "KLAdaptiveLR",
        "learning_rate_scheduler_kwargs": {"kl_threshold": 0.02},
        "state_preprocessor": "RunningStandardScaler",
        "state_preprocessor_kwargs": None,
        "value_preprocessor": "RunningStandardScaler",
        "grad_norm_clip": 0.5,
        "ratio_clip": 0.25,
        "value_clip": 0.3,
        "clip_predicted_values": True,
        "entropy_loss_scale": 0.003,
        "value_loss_scale": 2.0,
        "kl_threshold": 0.5,
        "rewards_shaper_scale": 0.1,
        "time_limit_bootstrap": False,
        "mixed_precision": True,
        "experiment": {"directory": "some_task", "checkpoint_interval": 400},
    },
    "trainer": {"class": "SequentialTrainer", "timesteps": 4800, "environment_info": "log"},
}


def changed(cfg: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    cfg = copy.deepcopy(cfg)
    node: Any = cfg
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[last] = value
    return cfg


def starts(notes: tuple[str, ...]) -> list[str]:
    return [note.partition("=")[0].partition("'s ")[2] for note in notes]


def test_every_key_of_rl_games_arrives_in_its_knob_or_in_a_note() -> None:
    settings, notes = settings_from(RL_GAMES)
    assert settings == {
        "experiment": {"name": "some_task", "max_iterations": 1234},
        "rollout": {"steps_per_env": 21},
        "ppo": {
            "update_epochs": 3,
            "batch_size": 512,
            "gamma": 0.97,
            "lam": 0.91,
            "clip": 0.25,
            "entropy_coef": 0.003,
            "normalize_advantages": False,
            "lr": 2e-4,
            "lr_schedule": "adaptive",
            "desired_kl": 0.02,
            "value_coef": 1.5,  # rl_games halves the squared error
            "value_clip": 0.25,
            "max_grad_norm": 0.5,
        },
        "policy": {
            "hidden_dims": [33, 22],
            "activation": "relu",
            "critic_hidden_dims": [44],
            "critic_activation": "tanh",
            "normalize_obs": True,
            "normalize_critic_obs": True,
            "normalize_values": True,
            "clip_actions": 0.7,
            "distribution": "heteroscedastic",
            "std_type": "log",
            "init_std": math.exp(-1.0),
            "recurrent": {"kind": "lstm", "hidden": 99, "layers": 2},
        },
        "checkpoint": {"every": 77},
    }
    assert starts(notes) == [
        "config.schedule_type",
        "env.clip_observations",
        "network.separate",
        "network.rnn.concat_input",
        "config.central_value_config.network.rnn.concat_input",
        "config.central_value_config.learning_rate",
        "config.value_bootstrap",
        "config.bounds_loss_coef",
        "config.mixed_precision",
        "config.reward_shaper.scale_value",
    ]
    config = load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)
    assert config.policy.recurrent.hidden == 99


def test_without_a_central_value_the_critic_reads_what_the_actor_reads() -> None:
    cfg = changed(RL_GAMES, "params.config.central_value_config", None)
    policy = settings_from(cfg)[0]["policy"]
    assert policy["obs_groups"] == {"actor": ["policy"], "critic": ["policy"]}
    cfg["params"]["network"] |= {"rnn": None, "cnn": {"type": "conv2d", "activation": "relu",
        "convs": [{"filters": 32, "kernel_size": 8, "strides": 4, "padding": 0}]}}  # fmt: skip
    assert settings_from(cfg)[0]["policy"]["encoders"] == {
        "*": {"kind": "cnn", "channels": [32], "kernel": [8], "stride": [4], "activation": "relu"}
    }


def test_every_key_of_skrl_arrives_in_its_knob_or_in_a_note() -> None:
    settings, notes = settings_from(SKRL)
    assert settings == {
        "experiment": {"name": "some_task", "max_iterations": 240},
        "rollout": {"steps_per_env": 20},
        "ppo": {
            "update_epochs": 3,
            "num_mini_batches": 6,
            "gamma": 0.97,
            "lam": 0.91,
            "lr": 2e-4,
            "clip": 0.25,
            "entropy_coef": 0.003,
            "value_coef": 2.0,
            "lr_schedule": "adaptive",
            "desired_kl": 0.02,
            "stop_kl": 0.5,
            "max_grad_norm": 0.5,
            "value_clip": 0.3,
        },
        "policy": {
            "hidden_dims": [33, 22],
            "activation": "relu",
            "critic_hidden_dims": [44],
            "critic_activation": "tanh",
            "std_type": "log",
            "init_std": math.exp(-1.0),
            "std_range": [1e-6, math.exp(1.0)],
            "normalize_obs": True,
            "normalize_critic_obs": True,
            "normalize_values": True,
        },
        "checkpoint": {"every": 20},
    }
    assert starts(notes) == [
        "agent.learning_rate_scheduler",
        "models.separate",
        "agent.rewards_shaper_scale",
        "agent.time_limit_bootstrap",
        "agent.mixed_precision",
    ]
    load_run_config({"env": {"kind": "mjlab", "task": "X"}}, (), settings)


def test_skrls_convolutions_are_the_encoder_of_pictures() -> None:
    conv = {"conv2d": {"out_channels": 32, "kernel_size": 8, "stride": 4, "padding": 0}}
    features = {
        "name": "features",
        "input": "permute(OBSERVATIONS, (0, 3, 1, 2))",
        "layers": [conv, "flatten"],
        "activations": "relu",
    }
    net = {"name": "net", "input": "features", "layers": [512], "activations": "elu"}
    cfg = copy.deepcopy(SKRL)
    for model in ("policy", "value"):
        cfg["models"][model]["network"] = [features, net]
    policy = settings_from(cfg)[0]["policy"]
    assert policy["hidden_dims"] == [512] and policy["encoders"] == {
        "*": {"kind": "cnn", "channels": [32], "kernel": [8], "stride": [4], "activation": "relu"}
    }


@pytest.mark.parametrize(
    ("cfg", "path", "value", "says"),
    [
        (RL_GAMES, "params.algo.name", "sac", "rl_games cfg (algo.name=sac) is not PPO"),
        (RL_GAMES, "params.network.name", "resnet_actor_critic", "is not supported"),
        (RL_GAMES, "params.network.mlp.d2rl", True, "(network.mlp.d2rl=True) is not supported"),
        (RL_GAMES, "params.network.rnn.before_mlp", False, "the memory is before the MLP"),
        (SKRL, "agent.class", "AMP", "skrl cfg (agent.class=AMP) is not PPO"),
        (SKRL, "agent.class", "MAPPO", "(agent.class=MAPPO) is not PPO"),
        (SKRL, "models.policy.class", "DeterministicMixin", "(models.policy.class=Determ"),
        (SKRL, "models.policy.output", "tanh(ACTIONS)", "use policy.squash=tanh"),
        (SKRL, "models.policy.network.0.input", "one_hot_encoding(X)", "(network.input=one_hot"),
    ],
)
def test_what_is_not_ppo_of_ours_is_refused_by_name(
    cfg: dict[str, Any], path: str, value: Any, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from(changed(cfg, path, value))
    message = str(caught.value)
    assert message.startswith("env.task: its ") and says in message
    assert message.endswith("; env.agent=none starts from this package's defaults instead")


@pytest.mark.parametrize(
    ("cfg", "path", "says"),
    [
        (RL_GAMES, "params.config.of_a_fork", "rl_games's config.of_a_fork=3: has no counterpart"),
        (SKRL, "agent.of_a_fork", "skrl's agent.of_a_fork=3: has no counterpart here"),
        (SKRL, "models.value.of_a_fork", "skrl's models.value.of_a_fork=3: has no counterpart"),
    ],
)
def test_a_key_that_nobody_knows_is_told(cfg: dict[str, Any], path: str, says: str) -> None:
    _, notes = settings_from(changed(cfg, path, 3))
    assert any(note.startswith(says) for note in notes)


ALL = ["env_cfg_entry_point", "rl_games_cfg_entry_point", "skrl_cfg_entry_point"]
ALL += ["skrl_amp_cfg_entry_point", "sb3_cfg_entry_point", "rsl_rl_cfg_entry_point"]


@pytest.mark.parametrize(
    ("asked", "entries", "key"),
    [
        (None, ALL, "rsl_rl_cfg_entry_point"),
        (None, ALL[:-1], "skrl_cfg_entry_point"),
        (None, ALL[:2], "rl_games_cfg_entry_point"),
        (None, ALL[:1], ""),
        ("none", ALL, ""),
        ("rl_games", ALL, "rl_games_cfg_entry_point"),
        ("skrl_amp_cfg_entry_point", ALL, "skrl_amp_cfg_entry_point"),
    ],
)
def test_rsl_rls_cfg_is_read_first(asked: str | None, entries: list[str], key: str) -> None:
    assert agent_key(asked, entries, "Task") == key


@pytest.mark.parametrize("asked", ["rsl_rl", "sb3_cfg_entry_point", "env_cfg_entry_point"])
def test_an_agent_that_the_task_does_not_have(asked: str) -> None:
    with pytest.raises(ConfigError) as caught:
        agent_key(asked, ALL[:3], "Task")
    assert str(caught.value).startswith(f"env.agent={asked}: no such entry")
    assert "; Task has rl_games_cfg_entry_point, skrl_cfg_entry_point, and none" in str(
        caught.value
    )


def test_another_trainers_file_is_nobodys() -> None:
    assert (trainer_of(RL_GAMES), trainer_of(SKRL)) == ("rl_games", "skrl")
    assert trainer_of({"policy": "MlpPolicy", "n_steps": 16}) is None  # of Stable-Baselines3
