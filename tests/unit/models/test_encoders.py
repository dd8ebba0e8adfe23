"""Encoders: what they compute, what they refuse, and how they are shared."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from isaac_hydra_ext.config.encoders import read_cnn
from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.cnn_encoder import CnnEncoder, spatial_softmax
from isaac_hydra_ext.models.encoders import make_encoder, num_features
from isaac_hydra_ext.system import entry_points

from ..builders import env_spec

SMALL = {"channels": [4, 6], "kernel": [3, 2], "stride": [2, 1]}


def cnn(spec: TensorSpec, **settings: Any) -> CnnEncoder:
    torch.manual_seed(0)
    encoder = make_encoder("camera", {**SMALL, **settings}, spec)
    assert isinstance(encoder, CnnEncoder)
    return encoder


def plain(encoder: CnnEncoder) -> nn.Sequential:
    """The same weights as PyTorch's own layers would have them."""
    layers: list[nn.Module] = []
    for layer in encoder.convolutions:
        layers += [layer, nn.ELU()]
    return nn.Sequential(*layers, nn.Flatten())


def test_uint8_is_scaled_to_0_to_1_in_the_first_layer() -> None:
    picture = torch.randint(256, (5, 12, 10, 3), dtype=torch.uint8)
    encoder = cnn(TensorSpec((12, 10, 3), "uint8"))
    expected = plain(encoder)((picture.float() / 255.0).permute(0, 3, 1, 2))
    torch.testing.assert_close(encoder(picture), expected)
    assert expected.shape[1] == 6 * 4 * 3


def test_floats_are_read_as_they_come_or_scaled_by_what_is_said() -> None:
    picture = torch.randn(5, 2, 12, 10)
    spec = TensorSpec((2, 12, 10), "float32")
    torch.testing.assert_close(cnn(spec)(picture), plain(cnn(spec))(picture))
    torch.testing.assert_close(cnn(spec, scale=0.5)(picture), plain(cnn(spec))(picture * 0.5))
    half = cnn(TensorSpec((2, 12, 10), "float16"))(picture.half())
    torch.testing.assert_close(half, plain(cnn(spec))(picture.half().float()))


@pytest.mark.parametrize(
    ("shape", "layout", "order"),
    [
        ((12, 10, 3), "auto", (0, 3, 1, 2)),
        ((3, 12, 10), "auto", (0, 1, 2, 3)),
        ((8, 8, 8), "nhwc", (0, 3, 1, 2)),
        ((8, 8, 8), "nchw", (0, 1, 2, 3)),
        ((12, 10), "auto", None),
    ],
)
def test_layouts_are_known_from_the_shape_or_said(
    shape: tuple[int, ...], layout: str, order: tuple[int, ...] | None
) -> None:
    picture = torch.randint(256, (2, *shape), dtype=torch.uint8)
    encoder = cnn(TensorSpec(shape, "uint8"), layout=layout)
    channels = picture.unsqueeze(1) if order is None else picture.permute(order)
    torch.testing.assert_close(encoder(picture), plain(encoder)(channels / 255.0))


@pytest.mark.parametrize("shape", [(4, 12, 10, 3), (4, 3, 12, 10)])
def test_a_stack_is_read_as_channels_the_oldest_first(shape: tuple[int, ...]) -> None:
    stack = torch.rand(2, *shape)
    encoder = cnn(TensorSpec(shape, "float32"))
    frames = [f if f.shape[1] == 3 else f.permute(0, 3, 1, 2) for f in stack.unbind(1)]
    torch.testing.assert_close(encoder(stack), plain(encoder)(torch.cat(frames, dim=1)))


def test_a_view_that_is_not_contiguous_is_read_in_place() -> None:
    rendered = torch.rand(3, 12, 10, 4)[..., :3]  # as mjlab gives its cameras
    encoder = cnn(TensorSpec((3, 12, 10), "float32"))
    view = rendered.permute(0, 3, 1, 2)
    torch.testing.assert_close(encoder(view), encoder(view.contiguous()))


@pytest.mark.parametrize("size", [11, 12, 13])
def test_padding_keeps_the_pixels_that_the_stride_leaves(size: int) -> None:
    for mode in ("zeros", "reflect", "replicate", "circular"):
        spec = TensorSpec((2, size, size), "float32")
        encoder = cnn(spec, channels=[4], kernel=5, stride=2, padding=mode)
        reference = nn.Conv2d(2, 4, 5, 2, 2 if size % 2 == 0 else 1, padding_mode=mode)
        reference.load_state_dict(encoder.convolutions[0].state_dict())
        picture = torch.rand(3, 2, size, size)
        expected = nn.functional.elu(reference(picture)).flatten(1)
        assert expected.shape[1] == 4 * (size // 2) ** 2
        torch.testing.assert_close(encoder(picture), expected)


@pytest.mark.parametrize("pool", ["flatten", "avg", "max", "spatial_softmax"])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_every_pool_gives_so_many_features(pool: str, norm: str) -> None:
    spec = TensorSpec((2, 20, 17), "float32")
    encoder = cnn(spec, pool=pool, norm=norm, max_pool=[True, False], dilation=[1, 2])
    # 20 x 17 pixels become 9 x 8, pooled 5 x 4, and 3 x 2.
    features = 6 * {"flatten": 3 * 2, "spatial_softmax": 2}.get(pool, 1)
    assert encoder(torch.rand(3, *spec.shape)).shape == (3, features)
    assert num_features(encoder, spec) == features


def test_spatial_softmax_finds_where_a_channel_is_active() -> None:
    picture = torch.zeros(1, 2, 3, 5)
    picture[0, 0, 0, 4], picture[0, 1, 2, 1] = 100.0, 100.0  # right top; the left, at the bottom
    found = spatial_softmax(picture)
    torch.testing.assert_close(found, torch.tensor([[1.0, -0.5, -1.0, 1.0]]))


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        ({}, (6,), r"policy.encoders.camera: the group is 6, not a picture"),
        ({}, (8, 8, 8), r"policy.encoders.camera.layout: cannot be told from 8x8x8"),
        ({"kernel": [9, 3]}, (8, 8, 3), r"kernel\[0\]=9: larger than the 8 x 8 pixels, of 3 ch"),
        ({"layout": "nchw", "kernel": 4}, (8, 8, 3), r"the 8 x 3 pixels, of 8 channels, that lay"),
        ({"dilation": 4}, (8, 8, 3), r"kernel\[0\]=3 \(9 pixels, as dilated\): larger than the 8"),
        ({"kernel": [3, 4]}, (8, 8, 3), r"kernel\[1\]=4: larger than the 3 x 3 pixels"),
        ({"kernel": [3, 4, 5]}, (8, 8, 3), r"3 entries for 2 layers"),
        ({"channels": []}, (8, 8, 3), r"channels=\[\]: one layer at least"),
        ({"stride": 0}, (8, 8, 3), r"policy.encoders.camera.stride=0: must be at least 1"),
        ({"channels": [0.5, 2]}, (8, 8, 3), r"policy.encoders.camera.channels\[0\]: Value '0.5'"),
        ({"kernel": {"a": 1}}, (8, 8, 3), r"kernel=\[\{'a': 1\}\]: a list of plain values"),
        ({"max_pool": 2}, (8, 8, 3), r"camera.max_pool=\[2\]: true or false is expected here"),
        ({"pool": None}, (8, 8, 3), r"camera.pool=null: not possible here; leave it out"),
        ({"scale": float("inf")}, (8, 8, 3), r"camera.scale=inf: must be finite"),
        ({"activation": "ReLU"}, (8, 8, 3), r"activation=ReLU: .*; did you mean 'relu'\?"),
        ({"pool": "mean"}, (8, 8, 3), r"pool=mean: must be one of flatten, avg"),
        ({"kernels": 3}, (8, 8, 3), r"policy.encoders.camera.kernels: unknown key"),
        ({"kernel": "big"}, (8, 8, 3), r"policy.encoders.camera.kernel"),
        ({"scale": -1.0}, (8, 8, 3), r"scale=-1.0: must be greater than 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(
    settings: dict[str, Any], shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as found:
        make_encoder("camera", {**SMALL, **settings}, TensorSpec(shape, "uint8"))
    assert "\n" not in str(found.value)


def test_one_entry_is_for_all_layers() -> None:
    config = read_cnn("camera", {"channels": [4, 8, 8], "kernel": 3, "max_pool": True})
    assert (config.kernel, config.max_pool, config.norm) == ([3] * 3, [True] * 3, "none")
    assert read_cnn("camera", None).channels == [16, 32, 32]


@pytest.mark.parametrize(
    ("settings", "size", "kernels"),
    [
        ({}, 84, [(8, 4), (4, 2), (3, 1)]),
        ({}, 35, [(3, 2), (3, 2), (3, 2)]),
        ({"channels": [8]}, 20, [(8, 4)]),
        ({"channels": [8, 8]}, 20, [(8, 4), (4, 2)]),
        ({"channels": [8, 8]}, 19, [(3, 2), (3, 2)]),
        ({"channels": [8, 8, 8, 8]}, 84, [(8, 4), (4, 2), (3, 1), (3, 1)]),
        ({"padding": "zeros"}, 16, [(8, 4), (4, 2), (3, 1)]),
        ({"stride": 2}, 35, [(8, 2), (4, 2), (3, 2)]),
        ({"channels": [8, 8], "kernel": 3}, 20, [(3, 4), (3, 2)]),
    ],
)
def test_kernels_that_nobody_gives_suit_the_layers_and_the_picture(
    settings: dict[str, Any], size: int, kernels: list[tuple[int, int]]
) -> None:
    spec = TensorSpec((size, size, 3), "uint8")
    encoder = make_encoder("camera", settings, spec)
    assert isinstance(encoder, CnnEncoder)
    layers = [layer for layer in encoder.convolutions if isinstance(layer, nn.Conv2d)]
    assert [(layer.kernel_size[0], layer.stride[0]) for layer in layers] == kernels
    picture = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    assert encoder(picture).shape == (2, num_features(encoder, spec))


def spec_of(**obs: tuple[tuple[int, ...], str]) -> EnvSpec:
    groups = {name: TensorSpec(shape, dtype) for name, (shape, dtype) in obs.items()}
    action = ActionSpec("continuous", 2, (-1.0, -1.0), (1.0, 1.0))
    return EnvSpec(3, groups, action, 0.02, 100, False)


SPEC = spec_of(camera=((12, 10, 3), "uint8"), policy=((5,), "float32"))
BOTH = {"actor": ["camera", "policy"], "critic": ["camera", "policy"]}


def policy_of(spec: EnvSpec = SPEC, **settings: Any) -> ActorCritic:
    settings = {"encoders": {"camera": SMALL}, "obs_groups": BOTH, "hidden_dims": [8], **settings}
    return ActorCritic(PolicyConfig(**settings), spec, seed=1)


def test_features_and_normalised_vectors_go_side_by_side_into_the_mlp() -> None:
    policy = policy_of()
    obs = {
        "camera": torch.randint(256, (3, 12, 10, 3), dtype=torch.uint8),
        "policy": torch.randn(3, 5),
    }
    assert list(policy.actor_normalizers) == ["policy"]  # no statistics of a picture
    policy.update_statistics(obs, torch.zeros(3))
    inputs = torch.cat(
        [policy.actor_encoders["camera"](obs["camera"]),
         policy.actor_normalizers["policy"](obs["policy"])], dim=1
    )  # fmt: skip
    torch.testing.assert_close(policy.action_params(obs)[:, :2], policy.actor(inputs))
    assert policy.chain() is None and policy.critic_chain() is None
    biggest = max(t.numel() for t in policy.state_dict().values() if t.dtype == torch.float64)
    assert biggest == 5


@pytest.mark.parametrize("share", [False, True])
def test_parameters_lie_in_flat_in_the_order_of_their_groups(share: bool) -> None:
    policy = policy_of(share_encoders=share)
    groups = policy.parameter_groups()
    assert list(groups) == (["actor", "shared", "critic"] if share else ["actor", "critic"])
    in_order = torch.cat([p.detach().flatten() for part in groups.values() for p in part])
    assert torch.equal(in_order, policy.flat[: policy.num_params])
    shared = sum(p.numel() for p in policy.shared_encoders.parameters())
    assert (shared > 0) is share
    assert policy_of().num_params == policy.num_params + shared


def refused(said: str, make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as found:
        make()
    assert "\n" not in str(found.value)


def test_groups_and_encoders_must_go_together() -> None:
    refused(
        "policy.encoders.kamera: the env has no group 'kamera'; did you mean 'camera'?",
        lambda: policy_of(encoders={"kamera": SMALL}),
    )
    large = spec_of(camera=((84, 84, 3), "uint8"), policy=((5,), "float32"))
    refused(
        "the obs group camera is a picture, 84x84x3 = 21,168 numbers: give it an encoder",
        lambda: policy_of(large, encoders={}),
    )
    refused(
        "the obs group camera is a picture, 84x84x3 = 21,168 numbers: give it an encoder",
        lambda: policy_of(large, encoders={"camera": {"kind": "mlp"}}),
    )
    assert policy_of(large, encoders={}, flatten_images=True).num_params > 8 * 21_168
    assert policy_of(encoders={}).num_params  # 360 numbers: small enough for an MLP


def test_a_registered_encoder_must_keep_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(entry_points, "load", lambda key, name, group: made["build"])

    def build(module: object) -> Callable[[], object]:
        made["build"] = lambda settings, spec: module
        return lambda: policy_of(encoders={"camera": {"kind": "mine"}})

    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).float()

    build(Flat())()
    refused("policy.encoders.camera: a int, not an nn.Module", build(3))
    refused("gives (3, 12, 10, 3) for 3 pictures", build(nn.Identity()))
    refused("has buffers", build(nn.Sequential(Flat(), nn.BatchNorm1d(360))))
    refused("another result each time", build(nn.Sequential(Flat(), Noise())))
    refused("cannot be built: RuntimeError", build(nn.Sequential(Flat(), nn.Linear(7, 2))))


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


def test_a_star_gives_every_picture_that_is_read_an_encoder() -> None:
    obs = {
        "vector": ((3,), "float32"),
        "left": ((12, 12, 3), "uint8"),
        "right": ((12, 12, 3), "uint8"),
        "unread": ((12, 12, 3), "uint8"),
    }
    config = PolicyConfig(
        encoders={"*": SMALL, "right": {**SMALL, "channels": [4, 7]}},
        obs_groups={"actor": ["vector", "left", "right"], "critic": ["vector"]},
    )
    policy = ActorCritic(config, env_spec(obs=obs), seed=0)
    channels = {k: e.convolutions[-1].out_channels for k, e in policy.actor_encoders.items()}
    assert channels == {"left": 6, "right": 7} and not len(policy.critic_encoders)


def test_an_mlp_encodes_a_vector() -> None:
    settings = {"kind": "mlp", "hidden_dims": [4], "features": 2, "activation": "tanh"}
    torch.manual_seed(0)
    encoder = make_encoder(
        "vector", {**settings, "last_activation": None}, TensorSpec((3,), "uint8")
    )
    weights = [p.detach() for p in encoder.parameters()]
    obs = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)
    hidden = torch.tanh(obs.float() @ weights[0].T + weights[1])
    torch.testing.assert_close(encoder(obs), hidden @ weights[2].T + weights[3])
    where = "policy.encoders.vector."
    for wrong, said in (
        ({"feature": 2}, "feature: unknown key; did you mean 'features'?"),
        ({"activation": "relly"}, "activation=relly: must be one of elu"),
        ({"features": 0}, "features=0: must be at least 1"),
        ({"hidden_dims": 3}, "hidden_dims=3: a list is expected here"),
    ):
        refused(
            f"{where}{said}",
            lambda wrong=wrong: make_encoder(
                "vector", {"kind": "mlp", **wrong}, TensorSpec((3,), "float32")
            ),
        )
