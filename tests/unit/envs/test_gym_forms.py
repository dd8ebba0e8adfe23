"""What Gymnasium envs give in forms of their own: ids, rewards, infos, old interfaces."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import StepResult
from isaac_hydra_ext.envs.episode_info import MAX_NAMES, EpisodeInfo
from isaac_hydra_ext.envs.gym import GymVecEnv
from isaac_hydra_ext.envs.gym_ids import find_spec
from isaac_hydra_ext.envs.registry import load_adapter, needs_simulator
from isaac_hydra_ext.errors import EnvContractError, EnvError


@pytest.mark.parametrize("before", [None, "/mine"])
def test_graphics_libraries_find_a_directory_of_sockets_named(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", before or "")
    if before is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    load_adapter("gym")
    assert os.environ["XDG_RUNTIME_DIR"] == (before or f"/run/user/{os.getuid()}")


class Said(gym.Env):
    """Gives what the test wants it to say in its third step, which ends the episode."""

    observation_space = spaces.Dict({"a": spaces.Box(-9, 9, (2,)), "b": spaces.Box(-9, 9, (1,))})
    action_space = spaces.Box(-1, 1, (1,))
    obs: Mapping[str, Any] = {"a": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)}

    def __init__(self, **said: Any) -> None:
        self.said, self.clock = {"obs": self.obs, "reward": 1.0, "info": {}, **said}, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.clock = 0
        return self.obs, {}

    def step(self, action: Any) -> Any:
        self.clock += 1
        ends = np.array([self.clock == 3]) if "ends" in self.said else self.clock == 3
        return self.said["obs"], self.said["reward"], ends, False, self.said["info"]


class OldReset(Said):
    def reset(self) -> Any:  # type: ignore[override]
        return self.obs


class OldResetWithSeed(Said):
    def reset(self, **_: Any) -> Any:
        return self.obs


class OldStep(Said):
    def step(self, action: Any) -> Any:
        return self.obs, 1.0, False, {}


for env_class in (Said, OldReset, OldResetWithSeed, OldStep):
    for version in (0, 2, 10):
        name = f"Forms/{env_class.__name__}-v{version}"
        gym.register(name, entry_point=env_class, disable_env_checker=True)
gym.register("Forms/Vector-v0", vector_entry_point="no_such_module:Env")


def steps_of(env_id: str = "Forms/Said-v0", steps: int = 3, **said: Any) -> list[StepResult]:
    env = GymVecEnv(EnvConfig(id=env_id, kwargs=said), 2)
    env.reset(0)
    return [env.step(torch.zeros(2, 1)) for _ in range(steps)]


# ------------------------------------------------------------------ rewards, ends, observations


@pytest.mark.parametrize(
    "reward", [1.5, np.float64(1.5), np.float32(1.5), np.array(1.5), np.array([1.5]), [[1.5]],
               torch.tensor([1.5])],
)  # fmt: skip
def test_one_number_is_a_reward_in_whatever_shape(reward: Any) -> None:
    result = steps_of(reward=reward, ends=True)[0]
    assert result.reward_B.tolist() == [1.5, 1.5] and result.reward_B.dtype == torch.float32
    assert result.terminated_B.tolist() == [False, False]


@pytest.mark.parametrize("reward", [np.zeros(3), np.zeros(0), None, "much", {"a": 1.0}])
def test_what_is_no_number_is_refused_as_the_reward(reward: Any) -> None:
    with pytest.raises(EnvContractError, match=r"^the reward of env 0 has the shape \("):
        steps_of(reward=reward)


def test_a_missing_group_is_named() -> None:
    with pytest.raises(EnvContractError, match="^obs group 'b': expected .*, env 0 lacks it$"):
        steps_of(obs={"a": np.zeros(2, np.float32)})


# ------------------------------------------------------------------ infos


def test_numbers_of_the_last_info_are_means_over_the_episodes_that_ended() -> None:
    info = {
        "is_success": True, "energy": np.array([3.0]), "count": np.int64(2), "Task/score": 0.5,
        "episode": {"r": 7.0, "l": 3}, "reward_terms": {"reach": 1.5, "deep": {"er": 1.0}},
        "_is_success": np.array([True]), "name": "text", "obs": np.zeros(4), "bad": float("nan"),
        "nothing": None, "x" * 101: 1.0,
    }  # fmt: skip
    first, second, last = steps_of(info=info)
    assert first.log == second.log == {}, "an episode's numbers are its last ones"
    assert last.log == {
        "Episode/is_success": 1.0, "Episode/energy": 3.0, "Episode/count": 2.0, "Task/score": 0.5,
        "Episode/r": 7.0, "Episode/l": 3.0, "reward_terms/reach": 1.5,
    }  # fmt: skip


def test_means_are_over_those_that_say_something_and_names_are_limited() -> None:
    read = EpisodeInfo().read([{"a": True}, {"a": False, "b": 4}, {}])
    assert read == {"Episode/a": 0.5, "Episode/b": 4.0}
    info = EpisodeInfo()
    assert len(info.read([{f"n{i}": i for i in range(MAX_NAMES + 9)}])) == MAX_NAMES
    later = info.read([{"new": 1.0, "n0": 2.0}])
    assert later == {"Episode/n0": 2.0}, "curves that are known go on"


# ------------------------------------------------------------------ interfaces of old Gym


@pytest.mark.parametrize("name", ["OldReset", "OldResetWithSeed", "OldStep"])
def test_an_interface_of_old_gym_is_one_line_that_names_it(name: str) -> None:
    function = "step" if name == "OldStep" else "reset"
    with pytest.raises(EnvContractError, match=rf"{name}-v0: {function}\(\) is that of Gym before"):
        steps_of(f"Forms/{name}-v0")


# ------------------------------------------------------------------ ids


def test_an_env_for_vectors_alone_is_refused_before_it_is_built() -> None:
    with pytest.raises(EnvError, match="env.id=Forms/Vector-v0: registered with a vector_entry"):
        find_spec(EnvConfig(id="Forms/Vector-v0"))


def test_an_id_without_its_version_is_the_newest_as_gymnasium_has_it() -> None:
    assert find_spec(EnvConfig(id="Forms/Said")).id == "Forms/Said-v10"
    assert len(steps_of("Forms/Said")) == 3


@pytest.mark.parametrize(
    "words",
    [
        {"id": "Beside-v0", "imports": ["beside"]},
        {"id": "beside:Beside-v0"},
        {"id": "beside:Beside"},
    ],
)
def test_a_module_beside_the_user_is_found_and_hides_nothing(
    words: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text(
        "import gymnasium as gym\nfrom gymnasium.envs.classic_control import PendulumEnv\n"
        "gym.register('Beside-v0', entry_point=PendulumEnv)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    assert find_spec(EnvConfig(**words)).id == "Beside-v0"
    assert sys.path[-1] == str(tmp_path)


def test_a_module_in_the_id_may_import_a_simulator() -> None:
    assert needs_simulator(EnvConfig(id="beside:Beside-v0"))
    assert not needs_simulator(EnvConfig(id="Pendulum-v1"))
