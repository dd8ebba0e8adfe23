"""Catch a falling ball: a picture is all there is of the state. Registered when imported.

The ball falls a row a step; the paddle at the bottom goes left, stays or goes right. The return is
1 for a ball that is caught, else -1.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ROWS, COLUMNS, PIXELS = 8, 8, 2  # a cell is PIXELS x PIXELS


class Catch(gym.Env[np.ndarray, int]):
    """Pictures [16, 16, 3] uint8, the ball red, the paddle green; or [3, 16, 16] in 0..1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, render_mode: str | None = None, dark: bool = False, floats: bool = False
    ) -> None:
        """Show nothing where `dark`: every pixel is 238."""
        self.render_mode, self._dark, self._floats = render_mode, dark, floats
        height, width = ROWS * PIXELS, COLUMNS * PIXELS
        self.observation_space = spaces.Box(0, 255, (height, width, 3), np.uint8)
        if floats:
            self.observation_space = spaces.Box(0.0, 1.0, (3, height, width), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Drop a ball anywhere."""
        super().reset(seed=seed)
        self._row, self._column = 0, int(self.np_random.integers(COLUMNS))
        self._paddle = int(self.np_random.integers(COLUMNS))
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the paddle, then the ball."""
        self._paddle = min(max(self._paddle + int(action) - 1, 0), COLUMNS - 1)
        self._row += 1
        ended = self._row == ROWS - 1
        reward = (1.0 if self._paddle == self._column else -1.0) if ended else 0.0
        return self._seen(), reward, ended, False, {}

    def _seen(self) -> np.ndarray:
        if not self._floats:
            return self.render()
        return self.render().transpose(2, 0, 1).astype(np.float32) / 255.0

    def render(self) -> np.ndarray:
        """Draw the state."""
        cells = np.zeros((ROWS, COLUMNS, 3), np.uint8)
        cells[self._row, self._column, 0] = 255
        cells[ROWS - 1, self._paddle, 1] = 255
        if self._dark:
            cells[:] = 238
        return cells.repeat(PIXELS, 0).repeat(PIXELS, 1)


gym.register("TestCatch-v0", entry_point=f"{__name__}:Catch")
