"""Small Gymnasium environments whose every number can be foretold."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

PREFIX = "UnitTest"


class Counter(gym.Env):
    """Observes its clock; terminates at `end`, and is cut off by TimeLimit.

    The action last received is kept in `actions` of the class, for tests to read.
    """

    actions: list[Any] = []
    observation_space: gym.Space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, action: gym.Space | None = None, end: int = 10**9) -> None:
        self.action_space = spaces.Discrete(2) if action is None else action
        self.end, self.clock, self.episode = end, 0, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self.clock, self.episode = 0, self.episode + 1
        return self.observe(), {}

    def observe(self) -> Any:
        return np.array([self.clock, self.episode], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        type(self).actions.append(action)
        self.clock += 1
        return self.observe(), float(self.clock), self.clock >= self.end, False, {}


class InPlace(Counter):
    """The same, but every observation is one and the same array."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buffer = np.zeros(2, np.float32)

    def observe(self) -> Any:
        self.buffer[:] = (self.clock, self.episode)
        return self.buffer


class Groups(Counter):
    """Dict observations of three dtypes."""

    observation_space = spaces.Dict(
        {
            "b": spaces.Box(-np.inf, np.inf, (1,), np.float64),
            "a": spaces.Box(0, 255, (2, 2), np.uint8),
            "scalar": spaces.Box(-1, 1, (), np.float32),
        }
    )

    def observe(self) -> Any:
        return {
            "b": np.array([self.clock / 3]),
            "a": np.full((2, 2), self.clock, np.uint8),
            "scalar": np.float32(self.episode / 10),
        }


class InPlaceGroups(Groups):
    """Dict observations whose arrays are rewritten in place."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.buffers = {k: np.zeros(s.shape, s.dtype) for k, s in self.observation_space.items()}

    def observe(self) -> Any:
        for key, value in super().observe().items():
            self.buffers[key][...] = value
        return self.buffers


class Shifted(gym.ObservationWrapper):
    """Adds 100 to what the env observes."""

    def observation(self, observation: Any) -> Any:
        return observation + np.float32(100)


def shifted_cartpole(**kwargs: Any) -> gym.Env:
    return Shifted(gym.make("CartPole-v1", **kwargs).unwrapped)


def register() -> None:
    """Make the ids known; may be called often."""
    entries = {
        "Counter": Counter,
        "InPlace": InPlace,
        "Groups": Groups,
        "InPlaceGroups": InPlaceGroups,
        "ShiftedCartPole": shifted_cartpole,
    }
    for name, entry in entries.items():
        if f"{PREFIX}{name}-v0" not in gym.registry:
            gym.register(f"{PREFIX}{name}-v0", entry, max_episode_steps=4)
