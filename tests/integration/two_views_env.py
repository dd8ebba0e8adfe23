"""A mass that is to be brought to rest at zero: one group sees its state, the other no speed."""

from typing import Any

import gymnasium as gym
import numpy as np

DT = 0.2


class TwoViews(gym.Env):
    """Group `full` is position and speed; `policy` is the position now and one step before."""

    observation_space = gym.spaces.Dict(
        {name: gym.spaces.Box(-np.inf, np.inf, (2,), np.float32) for name in ("full", "policy")}
    )
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, broken_at: int = 0) -> None:
        """Observe NaN in `full` after so many steps of an episode; 0: never."""
        self.broken_at, self.clock = broken_at, 0

    def reset(self, **kwargs: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self.clock = 0
        self.x, self.v = self.np_random.uniform(-1, 1, 2)
        self.before = self.x - DT * self.v
        return self.observe(), {}

    def observe(self) -> dict[str, np.ndarray]:
        speed = np.nan if self.broken_at and self.clock == self.broken_at else self.v
        views = {"full": [self.x, speed], "policy": [self.x, self.before]}
        return {name: np.array(view, np.float32) for name, view in views.items()}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.before, self.clock = self.x, self.clock + 1
        self.v += DT * float(np.clip(action[0], -1, 1))
        self.x += DT * self.v
        return self.observe(), -(self.x**2), False, False, {}


if "TwoViews-v0" not in gym.registry:  # this file may be imported under two names
    gym.register("TwoViews-v0", TwoViews, max_episode_steps=40)
