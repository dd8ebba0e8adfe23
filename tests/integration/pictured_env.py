"""`TwoViews` with a camera that sees what one of its views says. Registered when imported."""

from typing import Any

import gymnasium as gym
import numpy as np

from .two_views_env import TwoViews

HEIGHT, WIDTH, REACH = 6, 24, 2.0


class Pictured(TwoViews):
    """Besides the views a picture [6, 24, 1]: the position above, the one before below."""

    def __init__(self, floats: bool = False) -> None:
        """Take pictures as uint8, or as floats in 0..1."""
        super().__init__()
        self._floats = floats
        high, dtype = (1.0, np.float32) if floats else (255, np.uint8)
        camera = gym.spaces.Box(0, high, (HEIGHT, WIDTH, 1), dtype)
        self.observation_space = gym.spaces.Dict(
            {**TwoViews.observation_space.spaces, "camera": camera}
        )

    def observe(self) -> dict[str, Any]:
        where = np.clip((np.array([self.x, self.before]) / REACH + 1) / 2, 0, 1) * (WIDTH - 1)
        rows = np.clip(1 - abs(np.arange(WIDTH) - where[:, None]), 0, 1).repeat(HEIGHT // 2, 0)
        picture = rows if self._floats else 255 * rows
        dtype = self.observation_space["camera"].dtype
        return {**super().observe(), "camera": picture[..., None].astype(dtype)}


gym.register("TestPictured-v0", Pictured, max_episode_steps=40)
