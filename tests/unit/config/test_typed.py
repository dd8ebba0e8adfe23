"""What counts as typed: what Hydra's own parser says was set."""

import pytest

from isaac_hydra_ext.config.typed import is_typed, parse, typed_value
from isaac_hydra_ext.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "token", "is_so"),
    [
        ("ppo.gamma", "ppo.gamma=0.99", True),
        ("ppo.gamma", "+ppo.gamma=0.99", True),
        ("ppo.gamma", "++ppo.gamma=0.99", True),
        ("ppo.gamma", "ppo.gamma=", True),
        ("ppo.gamma", "ppo.gamma=0.9,0.99", True),
        ("ppo.gamma", "experiment.run_name='ppo.gamma=1'", False),
        ("ppo.gamma", "ppo.gamma_of_something=1", False),
        ("ppo.gamma", "ppo=default", False),
        ("ppo.gamma", "ppo@appo.ppo=default", False),
        ("ppo.gamma", "~ppo.gamma", False),
        ("ppo.lr", "ppo={gamma: 0.9, lr: 1e-3}", True),
        ("ppo.clip", "ppo={gamma: 0.9, lr: 1e-3}", False),
        ("ppo.lr", "ppo={}", False),
        ("policy.squash", "policy={obs_groups:{actor:[a],squash:[b]}}", False),
        ("policy.obs_groups", "policy={obs_groups:{actor:[a],squash:[b]}}", True),
        ("logging.video.every", "logging={video:{every:5}}", True),
        ("logging.video.length", "logging={video:{every:5}}", False),
        ("env.kwargs", "+env.kwargs.g=5", True),
        ("env.kwargs", "env.kwargs={}", True),
        ("env.id", "env.id='a,b'", True),
    ],
)
def test_what_types_a_knob(key: str, token: str, is_so: bool) -> None:
    assert is_typed(key, ["rollout=sync", token]) is is_so


@pytest.mark.parametrize("token", ["ppo.lr", "ppo={'lr':1e-3}", "ppo.lr=[1", "a=b=c", ""])
def test_what_hydra_cannot_read_is_an_error(token: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE is expected here"):
        parse(token)


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        ([], None),
        (["rollout=sync"], None),
        (["rollout.device=cpu"], "cpu"),
        (["rollout.device=cpu", "++rollout.device='cuda:1'"], "cuda:1"),
        (["rollout.device=[cuda:0,cuda:1]"], ["cuda:0", "cuda:1"]),
        (["rollout.device=cpu", "rollout={device: cuda, num_workers: 2}"], "cuda"),
        (["rollout.device=cpu", "rollout={num_workers: 2}"], "cpu"),
        (["rollout.device=cpu", "~rollout.device"], "cpu"),
    ],
)
def test_the_last_override_says_what_a_key_is(tokens: list[str], value: object) -> None:
    assert typed_value("rollout.device", tokens) == value
