"""The Gymnasium adapter: spaces, autoreset, final observations, actions."""

import dataclasses
import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import EnvSpec, StepResult, check_obs
from isaac_hydra_ext.envs.gym import GymVecEnv, describe
from isaac_hydra_ext.envs.gym_ids import find_spec
from isaac_hydra_ext.envs.gym_state import time_limit
from isaac_hydra_ext.errors import (
    EnvContractError,
    EnvError,
    EnvNotFoundError,
    MissingDependencyError,
)

from ..gym_samples import PREFIX, Counter, Groups, register

register()


def env_of(name: str, num_envs: int = 2, **kwargs: Any) -> GymVecEnv:
    env_id = name if "-v" in name else f"{PREFIX}{name}-v0"
    env = GymVecEnv(EnvConfig(id=env_id, kwargs=kwargs), num_envs)
    env.reset(0)
    return env


def stepped(env: GymVecEnv, action: list[list[float]] | None = None) -> StepResult:
    spec = env.spec
    dtype = torch.float32 if spec.action.kind == "continuous" else torch.int64
    if action is None:
        return env.step(torch.zeros(spec.num_envs, spec.action.dim, dtype=dtype))
    return env.step(torch.tensor(action, dtype=dtype))


# ------------------------------------------------------------------ spec


def test_pendulums_spec_is_read_off_the_env() -> None:
    spec = env_of("Pendulum-v1", 3).spec
    assert spec.num_envs == 3
    assert spec.obs["policy"].shape == (3,) and spec.obs["policy"].dtype == "float32"
    assert (spec.action.kind, spec.action.dim) == ("continuous", 1)
    assert (spec.action.low, spec.action.high) == ((-2.0,), (2.0,))
    assert (spec.step_dt, spec.max_episode_length) == (0.05, 200)
    assert spec.has_final_obs and spec.has_state and not spec.finite_horizon


def test_cartpoles_spec_and_a_limit_given_as_keyword() -> None:
    spec = env_of("CartPole-v1", max_episode_steps=7).spec
    assert (spec.action.kind, spec.action.nvec) == ("discrete", (2,))
    assert (spec.step_dt, spec.max_episode_length) == (0.02, 7)


def test_a_spec_survives_its_journey_as_json() -> None:
    for spec in (env_of("Pendulum-v1").spec, env_of("Groups").spec):
        assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_description_before_building() -> None:
    task = describe(EnvConfig(id="Pendulum-v1", kwargs={"g": 9.0}))
    assert task.default_num_envs == 32
    assert task.env_config == {"id": "Pendulum-v1", "g": 9.0}


# ------------------------------------------------------------------ observations


def test_dict_observations_become_groups_with_their_shapes_and_dtypes() -> None:
    env = env_of("Groups")
    assert {k: (s.shape, s.dtype) for k, s in env.spec.obs.items()} == {
        "a": ((2, 2), "uint8"),
        "b": ((1,), "float64"),
        "scalar": ((), "float32"),
    }
    result = stepped(env)
    check_obs(result.obs, env.spec)
    assert result.obs["a"].tolist() == [[[1, 1], [1, 1]]] * 2
    assert result.obs["b"].tolist() == [[1 / 3]] * 2


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (spaces.Box(0, 9, (2,), np.uint16), "obs group 'depth': uint16 is not supported; have a"),
        (spaces.Box(0, 9, (0,), np.float32), r"obs group 'depth': Box\(.*\) is empty; leave"),
    ],
)
def test_observations_that_torch_cannot_learn_from_are_refused(
    space: spaces.Box, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Groups, "observation_space", spaces.Dict({"depth": space}))
    with pytest.raises(EnvError, match=says):
        env_of("Groups")


@pytest.mark.parametrize("name", ["Counter", "InPlace"])
def test_what_a_step_returns_is_the_callers_to_keep(name: str) -> None:
    env = env_of(name)
    first = stepped(env)
    kept = (first.obs["policy"].clone(), first.reward_B.clone(), first.truncated_B.clone())
    for _ in range(3):
        stepped(env)
    assert torch.equal(first.obs["policy"], kept[0])
    assert torch.equal(first.reward_B, kept[1]) and first.reward_B.dtype == torch.float32
    assert torch.equal(first.truncated_B, kept[2]) and first.truncated_B.dtype == torch.bool


@pytest.mark.parametrize("name", ["Groups", "InPlaceGroups", "Counter"])
def test_some_envs_begin_anew_and_the_others_go_on(name: str) -> None:
    env = env_of(name, 3)
    for _ in range(3):
        stepped(env)
    rows = env.reset_envs([2, 0])
    clock = "policy" if name == "Counter" else "a"
    check_obs(rows, dataclasses.replace(env.spec, num_envs=2))
    assert rows[clock].flatten(1)[:, 0].tolist() == [0, 0]
    result = stepped(env)
    assert result.truncated_B.tolist() == [False, True, False]  # the limit is 4 steps
    assert result.obs[clock].flatten(1)[:, 0].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (np.zeros(3, np.float32), r"gave \[3\] float32"),
        (np.zeros(1, np.float32), r"gave \[1\] float32"),  # would broadcast
        (np.zeros(0, np.float32), r"gave \[0\] float32"),
        (np.zeros((2, 1), np.float32), r"gave \[2, 1\] float32"),
        (np.float32(1), r"gave \[\] float32"),
        (np.zeros(2, complex), "gave: Cannot cast"),
        ({"a": 1}, "gave: Cannot cast|gave: .*casting"),
        ([[1.0], [1.0, 2.0]], "gave: .*inhomogeneous"),
        (None, "gave: Cannot cast"),
    ],
)
@pytest.mark.parametrize("whose", [[1], [0, 1]])
def test_an_observation_that_is_not_of_its_space_is_named_with_its_group_and_env(
    wrong: Any, says: str, whose: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    env, group = env_of("Counter"), r"obs group 'policy': expected \[2\] float32, env "
    for one in whose:
        monkeypatch.setattr(env._envs[one].unwrapped, "observe", lambda: wrong)
    with pytest.raises(EnvContractError, match=f"^{group}{whose[0]} {says}"):
        stepped(env)
    with pytest.raises(EnvContractError, match=f"^{group}{whose[0]} {says}"):
        env.reset(0)
    with pytest.raises(EnvContractError, match=f"^{group}1 {says}"):
        env.reset_envs([1])


@pytest.mark.parametrize("found", [np.zeros(3, np.float32), {"b": np.zeros(3, np.float32)}])
def test_of_several_groups_the_wrong_one_is_named(
    found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = env_of("Groups")
    stepped(env)  # Gymnasium's own checker looks at the first step alone
    good = env._envs[1].unwrapped.observe()  # type: ignore[attr-defined]
    wrong = {**good, **found} if isinstance(found, dict) else found
    monkeypatch.setattr(env._envs[1].unwrapped, "observe", lambda: wrong)
    with pytest.raises(EnvContractError, match=r"^obs group '[ab]': expected \[.*, env 1 gave"):
        stepped(env)


def test_a_wrong_final_observation_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    env = env_of("Counter")
    inner = env._envs[1].unwrapped
    monkeypatch.setattr(
        inner, "observe", lambda: np.zeros(1 if inner.clock == 4 else 2, np.float32)
    )  # right after the reset; a row of one number would be written to both
    for _ in range(3):
        stepped(env)
    says = r"^final obs group 'policy': expected \[2\] float32, env 1 gave \[1\] float32$"
    with pytest.raises(EnvContractError, match=says):
        stepped(env)


# ------------------------------------------------------------------ ends


def until_end(env: GymVecEnv) -> StepResult:
    for _ in range(3):
        result = stepped(env)
        assert result.final_obs is None
        assert not (result.truncated_B | result.terminated_B).any()
    return stepped(env)


@pytest.mark.parametrize("name", ["Counter", "InPlace"])
def test_a_truncation_gives_the_last_observation_and_the_next_ones_first(name: str) -> None:
    result = until_end(env_of(name))
    assert result.truncated_B.all() and not result.terminated_B.any()
    assert result.reward_B.tolist() == [4.0, 4.0]
    assert result.obs["policy"][:, 0].tolist() == [0.0, 0.0]
    assert result.final_obs is not None
    assert result.final_obs["policy"][:, 0].tolist() == [4.0, 4.0]
    # the final one belongs to the episode before
    assert (result.obs["policy"] - result.final_obs["policy"])[:, 1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["Groups", "InPlaceGroups"])
def test_final_observations_of_every_group(name: str) -> None:
    result = until_end(env_of(name))
    final = result.final_obs
    assert final is not None
    assert final["a"].tolist() == [[[4, 4], [4, 4]]] * 2 and final["a"].dtype == torch.uint8
    assert final["b"].tolist() == [[4 / 3]] * 2 and final["b"].dtype == torch.float64
    assert final["scalar"].shape == (2,)
    assert result.obs["a"].tolist() == [[[0, 0], [0, 0]]] * 2


def test_only_rows_that_were_cut_off_hold_a_final_observation() -> None:
    env = env_of("Counter")
    # env 1 is two steps behind: only env 0 is cut off in the fourth step.
    env._envs[1].reset()
    time_limit(env._envs[1])._elapsed_steps = -2
    result = until_end(env)
    assert result.truncated_B.tolist() == [True, False]
    assert result.final_obs is not None
    assert result.final_obs["policy"][0, 0] == 4.0
    assert result.final_obs["policy"][1].tolist() == [0.0, 0.0]
    assert result.obs["policy"][:, 0].tolist() == [0.0, 4.0]


def test_a_termination_alone_gives_none() -> None:
    result = until_end(env_of("Counter", end=4, max_episode_steps=9))
    assert result.terminated_B.all() and not result.truncated_B.any()
    assert result.final_obs is None
    assert result.obs["policy"][:, 0].tolist() == [0.0, 0.0]


def test_an_end_for_both_reasons_reports_both() -> None:
    result = until_end(env_of("Counter", end=4))
    assert result.terminated_B.all() and result.truncated_B.all()


# ------------------------------------------------------------------ actions


def received(action_space: gym.Space, action: list[list[float]]) -> list[Any]:
    env = env_of("Counter", len(action), action=action_space)
    Counter.actions.clear()
    stepped(env, action)
    assert all(action_space.contains(a) for a in Counter.actions)
    return [np.asarray(a).tolist() for a in Counter.actions]


def test_continuous_actions_arrive_as_they_are() -> None:
    box = spaces.Box(-1, 1, (2,), np.float32)
    assert received(box, [[0.5, -0.25], [1.0, 0.0]]) == [[0.5, -0.25], [1.0, 0.0]]


def test_discrete_actions_arrive_as_numbers() -> None:
    assert received(spaces.Discrete(3), [[0], [2]]) == [0, 2]


def test_discrete_actions_begin_at_the_spaces_start() -> None:
    assert received(spaces.Discrete(3, start=-1), [[0], [2]]) == [-1, 1]


def test_multi_discrete_actions_arrive_as_vectors() -> None:
    space = spaces.MultiDiscrete([2, 5])
    assert env_of("Counter", action=space).spec.action.nvec == (2, 5)
    assert received(space, [[1, 4], [0, 3]]) == [[1, 4], [0, 3]]


def test_one_choice_of_a_multi_discrete_space_is_a_vector() -> None:
    assert received(spaces.MultiDiscrete([3]), [[0], [2]]) == [[0], [2]]


def test_multi_discrete_actions_begin_at_the_spaces_start() -> None:
    space = spaces.MultiDiscrete([2, 5], start=[10, -2])
    assert received(space, [[1, 4], [0, 0]]) == [[11, 2], [10, -2]]


def test_actions_of_a_box_of_doubles_arrive_as_doubles() -> None:
    assert received(spaces.Box(-1, 1, (1,), np.float64), [[0.5]]) == [[0.5]]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2, 2)),
        spaces.Box(-1, 1, ()),
        spaces.MultiBinary(3),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.MultiDiscrete([[2, 2], [3, 3]]),
        spaces.Box(0, 9, (2,), np.int64),
    ],
)
def test_action_spaces_that_are_not_supported(space: gym.Space) -> None:
    with pytest.raises(EnvError) as caught:
        env_of("Counter", action=space)
    message = str(caught.value)
    assert message.startswith("action space ") and "not supported" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("space", "group"),
    [
        (spaces.Discrete(3), "policy"),
        (spaces.Tuple([spaces.Box(0, 1, (1,))]), "policy"),
        (spaces.Dict({"x": spaces.Discrete(3)}), "x"),
        (spaces.Dict({"x": spaces.Dict({"y": spaces.Box(0, 1, (1,))})}), "x"),
    ],
)
def test_observation_spaces_that_are_not_supported_name_their_group(
    space: gym.Space, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counter, "observation_space", space)
    with pytest.raises(EnvError, match=f"obs group '{group}'.*not supported"):
        GymVecEnv(EnvConfig(id=f"{PREFIX}Counter-v0"), 2)


def test_an_unknown_id_names_near_ones() -> None:
    with pytest.raises(EnvNotFoundError, match="env.id=CartPol-v1.*'CartPole-v1'"):
        find_spec(EnvConfig(id="CartPol-v1"))


def test_imports_register_before_the_id_is_looked_up() -> None:
    find_spec(EnvConfig(id="Pendulum-v1", imports=["json"]))
    with pytest.raises(EnvNotFoundError, match=r"env\.imports: cannot import 'no_such_module'"):
        find_spec(EnvConfig(id="Pendulum-v1", imports=["no_such_module"]))
    with pytest.raises(EnvNotFoundError, match="'math:pi' is a float, not a function"):
        find_spec(EnvConfig(id="Pendulum-v1", imports=["math:pi"]))


@pytest.mark.parametrize(
    "error", [gym.error.DependencyNotInstalled("no MuJoCo,\nrun pip install x"), ImportError("jax")]
)
def test_an_env_whose_package_is_missing_is_told_in_one_line(error: Exception) -> None:
    def make(**_: object) -> gym.Env:
        raise error

    gym.register("Missing-v0", make)
    try:
        with pytest.raises(
            MissingDependencyError, match=r"^env\.id=Missing-v0: (no MuJoCo, run|jax)"
        ):
            GymVecEnv(EnvConfig(id="Missing-v0"), 1)
    finally:
        del gym.registry["Missing-v0"]
