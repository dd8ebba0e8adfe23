"""rsl_rl's models as ours: classes, distributions, memories, encoders."""

import copy
from typing import Any

import pytest

from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import settings_from_rsl_rl
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.networks import make_network

from ..builders import env_spec
from .test_rsl_rl_cfg import CFG, changed_cfg, older


def test_without_a_distribution_cfg_rsl_rls_defaults_hold() -> None:
    policy = settings_from_rsl_rl(changed_cfg("actor.distribution_cfg", None))[0]["policy"]
    assert (policy["init_std"], policy["std_type"]) == (1.0, "scalar")


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
