"""Gymnasium envs that note their own episodes, the same for every trainer. Imported in its process.

`benchmarks.peer_env:LoggedPendulum-v1` is an id that every trainer can be given. Each env appends
lines to the file named by PEER_LOG: `start TIME` at its first step, then `episode TIME RETURN
NUMBER STEPS` at each end: how many episodes it has ended before, how many steps it has taken in
all. Needs nothing but Gymnasium, 0.29 or later.
Those that need a memory are `benchmarks.peer_env:LoggedTMaze-v0` and `LoggedMaskedCartPole-v0`.
"""

import os
import time
from typing import Any

import gymnasium as gym
import numpy as np

IDS = {"CartPole-v1": "LoggedCartPole-v1", "Pendulum-v1": "LoggedPendulum-v1"}
MEMORY_TASKS = "tests.integration.memory_tasks"  # with two discrete actions
BY_SIGN = {"MaskedCartPole-v0": "LoggedMaskedCartPole-v0", "TMaze-v0": "LoggedTMaze-v0"}


class LoggedEnv(gym.Wrapper):
    """Writes single short lines in append mode, which processes may do side by side."""

    def __init__(self, env: gym.Env) -> None:
        """Wrap one env."""
        super().__init__(env)
        self._file = -1
        self._return, self._episodes, self._steps = 0.0, 0, 0

    def _write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._return = 0.0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and note the episode's end."""
        if self._file < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._file = os.open(os.environ["PEER_LOG"], flags, 0o644)
            self._write(f"start {time.time()}")
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._steps += 1
        if terminated or truncated:
            self._write(f"episode {time.time()} {self._return} {self._episodes} {self._steps}")
            self._episodes += 1
        return obs, reward, terminated, truncated, info


class BySign(gym.ActionWrapper):
    """Two actions as the sign of one number."""

    def __init__(self, env: gym.Env) -> None:
        """Wrap one env."""
        super().__init__(env)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def action(self, action: Any) -> int:
        """Return which one it is."""
        return int(action[0] > 0)


for _base, _logged in BY_SIGN.items():
    gym.register(
        _logged,
        lambda base=_base, **kwargs: LoggedEnv(
            BySign(gym.make(f"{MEMORY_TASKS}:{base}", **kwargs))
        ),
        order_enforce=False,
        disable_env_checker=True,
    )
for _base, _logged in IDS.items():
    gym.register(
        _logged,
        lambda base=_base, **kwargs: LoggedEnv(gym.make(base, **kwargs)),
        order_enforce=False,
        disable_env_checker=True,
    )
