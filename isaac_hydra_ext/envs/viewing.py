"""Envs that can be watched: what `appo play --viewer` asks of them, and at which speed they go.

Runs in the process that plays.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from isaac_hydra_ext.envs.contract import StepResult, VecEnv

BEHIND_S = 0.1  # what is lost by more than this is not made up for by haste


class Player(Protocol):
    """A policy that plays in the env; whoever shows the env decides when it steps."""

    def step(self) -> StepResult:
        """Act, and advance all envs by one step."""
        ...

    def reset(self) -> None:
        """Start all episodes anew."""
        ...

    def begin(self, obs: Mapping[str, torch.Tensor], begun_B: torch.Tensor | None = None) -> None:
        """Go on from these observations; `begun_B`: whose episodes somebody else has begun."""
        ...


class ViewableEnv(VecEnv, Protocol):
    """An env made with `view=True`, which adapters are told where `EnvFacts.has_viewer`."""

    def view(self, player: Player, open_page: Callable[[], Any]) -> None:
        """Reset, then have `player` play, in real time, where it can be seen; never returns.

        Args:
            player: Steps this env.
            open_page: Returns a `viser.ViserServer`, for an env that is shown in the browser.
        """
        ...


class Pace:
    """Real time: `wait` after each step."""

    def __init__(
        self,
        step_dt: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin now.

        Args:
            step_dt: What a step simulates [s]; 0: as fast as it goes.
            clock: [s].
            sleep: Takes seconds.
        """
        self._step_dt, self._clock, self._sleep = step_dt, clock, sleep
        self._due = clock()

    def wait(self, speed: float = 1.0) -> None:
        """Wait until the step just taken is over; `speed` 2 is twice as fast as the world."""
        now = self._clock()
        self._due = max(self._due + self._step_dt / speed, now - BEHIND_S)
        if self._due > now:
            self._sleep(self._due - now)


def has_display() -> bool:
    """Return whether a window can open; a container or a remote shell on Linux often has none."""
    linux = sys.platform.startswith("linux")
    return not linux or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
