"""The configuration of the policy, the part `policy` of `schema.py`. Used in every process."""

from dataclasses import dataclass, field
from typing import Any

from isaac_hydra_ext.config.knob import knob


@dataclass
class RecurrentConfig:
    """A memory in front of the actor's hidden layers, and one in front of the critic's."""

    kind: str | None = knob(None, "null: none", choices=("lstm", "gru"))
    hidden: int = knob(256, "[units] of each of its layers", ge=1, le=2**16)
    layers: int = knob(1, "[layers] one upon the other", ge=1, le=64)


@dataclass
class PolicyConfig:
    """The actor and the critic."""

    kind: str = knob("actor_critic", "actor_critic, or a whole policy that a package registers")
    kwargs: dict[str, Any] = knob({}, "what a registered policy reads")
    network: str = knob(
        "mlp", "architecture: mlp, module:function, or one that a package registers"
    )
    hidden_dims: list[int] = knob(
        [256, 128, 64], "[units] of the actor's hidden layers", ge=1, le=2**16
    )
    critic_hidden_dims: list[int] | None = knob(
        None, "[units] of the critic's; null: the actor's", ge=1, le=2**16
    )
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)
    activation: str = knob(
        "elu", "of the hidden layers", choices=("elu", "relu", "tanh", "selu", "silu", "gelu")
    )
    critic_activation: str | None = knob(
        None,
        "of the critic's hidden layers; null: the actor's",
        choices=("elu", "relu", "tanh", "selu", "silu", "gelu"),
    )
    distribution: str = knob(
        "gaussian",
        "of continuous actions; heteroscedastic: a Gaussian whose std depends on the observation; "
        "beta: bounded, as the env's actions are",
        choices=("gaussian", "heteroscedastic", "beta"),
    )
    init_std: float = knob(1.0, "[actions] initial std of a Gaussian", ge=1e-6, le=1e6)
    std_type: str = knob("scalar", "what is learned: std itself or its log",
                         choices=("scalar", "log"))  # fmt: skip
    std_range: list[float] | None = knob(
        None, "[actions] least and largest std: [0.05,1.0]; null: 0.001 or more", ge=1e-6, le=1e6
    )
    learn_std: bool = knob(True, "false: the Gaussian's std stays init_std")
    squash: str = knob("none", "tanh scales actions to the env's bounds", choices=("none", "tanh"))
    clip_actions: float | None = knob(None, "[actions] clip the env's copy of them to +-this", gt=0)
    normalize_obs: bool = knob(True, "running mean and std of the actor's observations")
    normalize_critic_obs: bool = knob(True, "running mean and std of the critic's")
    normalize_values: bool = knob(False, "the critic predicts normalised returns (PopArt)")
    obs_groups: dict[str, list[str]] | None = knob(
        None, "e.g. {actor: [policy], critic: [policy, privileged]}; null: by name"
    )
    encoders: dict[str, Any] = knob(
        {},
        "of image groups: {camera: {kind: cnn, channels: [16,32,32], kernel: [8,4,3], ...}}; *: "
        "of all that are read; kind mlp: of a vector",
    )
    share_encoders: bool = knob(
        False, "actor and critic have one encoder of a group that both read"
    )
    flatten_images: bool = knob(False, "an MLP may read an image group of more than 1,024 numbers")
