"""An env that does in the evaluator's process what files tell it to, and nothing odd elsewhere."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

MARK = {"MUJOCO_GL": "evaluator"}  # in the evaluator's environment, by which the env knows it
STEPS = 5


class Staged(gym.Env):
    """The reward is the action; an episode lasts `STEPS` steps.

    In `stage`, while they exist: `hold` blocks the first step, `die` kills the process there,
    `raise` raises there, `nan` rewards with it, `no_build` raises in the constructor, `blind` in
    `render`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, stage: str, size: int = 2, render_mode: str | None = None) -> None:
        self.stage, self.render_mode, self.clock = Path(stage), render_mode, 0
        if self.here("wide"):
            self.observation_space = gym.spaces.Box(-1, 1, (size + 1,), np.float32)
        if self.here("no_build"):
            raise RuntimeError("no scene")

    def here(self, what: str) -> bool:
        marked = all(os.environ.get(name) == value for name, value in MARK.items())
        return marked and (self.stage / what).exists()

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=kwargs.get("seed"))
        self.clock = 0
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return np.zeros(self.observation_space.shape or (), np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        while self.here("hold"):
            time.sleep(0.01)
        if self.here("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.here("raise"):
            raise RuntimeError("fell over")
        self.clock += 1
        reward = float("nan") if self.here("nan") else float(action[0])
        return self.observe(), reward, self.clock == STEPS, False, {}

    def render(self) -> np.ndarray:
        if self.here("blind"):
            raise RuntimeError("no display")
        return np.full((32, 48, 3), 40 * self.clock, np.uint8)


gym.register("Staged-v0", Staged)
