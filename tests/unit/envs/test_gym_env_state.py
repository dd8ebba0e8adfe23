"""Seeds, random episode times, and states that continue to the last bit."""

import json
from typing import Any

import pytest
import torch

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.gym import GymVecEnv
from isaac_hydra_ext.envs.gym_state import time_limit

from ..gym_samples import PREFIX, register

register()

CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"


def built(env_id: str, **kwargs: Any) -> GymVecEnv:
    return GymVecEnv(EnvConfig(id=env_id, kwargs=kwargs), 3)


def trajectory(env: GymVecEnv, steps: int, first: int = 0) -> list[torch.Tensor]:
    """Everything a few steps return, with actions foretold by the step's number."""
    out = []
    for t in range(first, first + steps):
        if env.spec.action.kind == "discrete":
            action = torch.tensor([[t % 2], [(t // 2) % 2], [1]])
        else:
            action = torch.tensor([[t % 5 - 2.0], [1.0], [-0.5]])
        result = env.step(action)
        out += [result.obs["policy"], result.reward_B, result.terminated_B, result.truncated_B]
        if result.final_obs is not None:
            out.append(result.final_obs["policy"])
    return out


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def ends(values: list[torch.Tensor]) -> int:
    return sum(int(v.sum()) for v in values if v.dtype == torch.bool)


@pytest.mark.parametrize(("env_id", "limit"), [(CARTPOLE, 500), (CARTPOLE, 13), (PENDULUM, 13)])
def test_a_state_continues_to_the_last_bit_through_autoresets(env_id: str, limit: int) -> None:
    one, other = (built(env_id, max_episode_steps=limit) for _ in range(2))
    one.reset(5)
    trajectory(one, 7)
    state = json.loads(json.dumps(one.state_dict()))  # as in a checkpoint
    other.reset(99)
    trajectory(other, 3)
    obs = other.load_state_dict(state)
    expected = trajectory(one, 60, first=7)
    assert same(trajectory(other, 60, first=7), expected)
    assert ends(expected) >= 6  # each env was reset at least twice on the way
    assert obs["policy"].shape == (3, one.spec.obs["policy"].shape[0])


@pytest.mark.parametrize("env_id", [CARTPOLE, PENDULUM])
def test_loading_a_state_returns_the_observation_that_came_before(env_id: str) -> None:
    one, other = built(env_id), built(env_id)
    one.reset(5)
    before = trajectory(one, 7)[-4]
    obs = other.load_state_dict(one.state_dict() or {})["policy"]
    assert obs.dtype == before.dtype
    assert torch.equal(obs, before)


def test_a_state_right_after_a_reset_continues_too() -> None:
    one, other = built(CARTPOLE), built(CARTPOLE)
    first = one.reset(5)["policy"]
    assert torch.equal(other.load_state_dict(one.state_dict() or {})["policy"], first)
    assert same(trajectory(one, 30), trajectory(other, 30))


def test_a_state_is_a_copy() -> None:
    env = built(PENDULUM)
    env.reset(5)
    state = env.state_dict()
    kept = json.dumps(state)
    trajectory(env, 5)
    assert json.dumps(state) == kept


def test_envs_nobody_knows_the_state_of_have_none() -> None:
    env = built(f"{PREFIX}Counter-v0")
    assert not env.spec.has_state and env.state_dict() is None


def test_a_known_env_inside_an_unknown_wrapper_has_no_state_or_restores_what_it_shows() -> None:
    # What the wrapper does to observations is not part of the physics.
    one, other = (built(f"{PREFIX}ShiftedCartPole-v0", max_episode_steps=50) for _ in range(2))
    first = one.reset(5)["policy"]
    if one.spec.has_state:
        assert torch.equal(other.load_state_dict(one.state_dict() or {})["policy"], first)


def test_the_seed_decides_everything_and_each_env_has_its_own() -> None:
    one, other = built(CARTPOLE), built(CARTPOLE)
    a, b = one.reset(3)["policy"], other.reset(3)["policy"]
    assert torch.equal(a, b)
    assert not torch.equal(a[0], a[1])
    assert same(trajectory(one, 80), trajectory(other, 80))
    assert not torch.equal(one.reset(4)["policy"], a)


def test_random_episode_times_end_episodes_early_and_apart() -> None:
    env = built(PENDULUM, max_episode_steps=50)
    env.reset(0)
    assert env.randomize_episode_time(torch.Generator().manual_seed(1))
    times = [time_limit(e)._elapsed_steps for e in env._envs]
    assert all(0 <= t < 50 for t in times) and len(set(times)) == 3
    first_end = [0, 0, 0]
    for step in range(1, 51):
        action = torch.zeros(3, 1)
        for b in env.step(action).truncated_B.nonzero()[:, 0].tolist():
            first_end[b] = first_end[b] or step
    assert first_end == [50 - t for t in times]


def test_an_env_without_a_limit_cannot_start_at_a_random_time() -> None:
    env = built(CARTPOLE, max_episode_steps=-1)
    env.reset(0)
    assert env.spec.max_episode_length == 0
    assert not env.randomize_episode_time(torch.Generator())
