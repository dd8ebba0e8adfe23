"""Two tasks that nobody solves without memory, for `env.imports=[memory_tasks]`."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

LENGTH = 20  # steps of the T-maze's corridor


class MaskedCartPole(gym.ObservationWrapper):
    """CartPole that shows where cart and pole are, not how fast they move."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(gym.make("CartPole-v1", **kwargs).unwrapped)
        box = self.env.observation_space
        assert isinstance(box, spaces.Box)
        self.observation_space = spaces.Box(box.low[::2], box.high[::2], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[::2]


class TMaze(gym.Env):
    """A sign at the start says which way to turn at the corridor's end (Bakker 2002).

    The observation is the sign, shown in the first step alone, and whether this is the end. There
    the action, left or right, is worth 1 if it is the sign's; on the way it changes nothing.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._sign, self._step = int(self.np_random.integers(2)), 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        at_end = self._step == LENGTH
        reward = float(at_end and int(action) == self._sign)
        self._step += not at_end
        return self._see(), reward, at_end, False, {}

    def _see(self) -> np.ndarray:
        sign = (2.0 * self._sign - 1.0) if self._step == 0 else 0.0
        return np.array([sign, float(self._step == LENGTH)], np.float32)


gym.register("MaskedCartPole-v0", MaskedCartPole, max_episode_steps=500)
gym.register("TMaze-v0", TMaze)
