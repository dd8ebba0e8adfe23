"""An env that costs nothing, registered the way a package of a user's would be.

Imported by the process that hosts the simulation. `env.kwargs`: `obs` (group -> [dtype, *shape]),
`actions` (A), `fill`: `noise` draws every observation anew, `frames` hands out drawn ones in turn,
so that a step costs no more than the write into the slot.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import (
    ActionSpec,
    EnvSpec,
    StepResult,
    TaskDescription,
    TensorSpec,
)

KIND = "free"
FRAMES = 8  # drawn ahead; with large ones no cache holds them


@contextmanager
def registered() -> Iterator[None]:
    """Register the adapter for this process and those that it spawns."""
    with TemporaryDirectory() as site:
        info = Path(site) / "free_env-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: free-env\nVersion: 0\n")
        entry = f"[isaac_hydra_ext.envs]\n{KIND} = {__name__}\n"
        (info / "entry_points.txt").write_text(entry)
        before, path = os.environ.get("PYTHONPATH"), list(sys.path)
        root = str(Path(__file__).resolve().parent.parent)
        os.environ["PYTHONPATH"] = os.pathsep.join([site, root, *filter(None, [before])])
        sys.path.insert(0, site)
        try:
            yield
        finally:
            sys.path[:] = path
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before


def describe(env_config: EnvConfig, device: str) -> TaskDescription:
    """See `Adapter.describe`."""
    return TaskDescription(1, {}, {})


def make(env_config: EnvConfig, *, num_envs: int, device: str, **_: Any) -> "FreeEnv":
    """See `Adapter.make`."""
    return FreeEnv(num_envs, device, **env_config.kwargs)


class FreeEnv:
    """See the module's docstring; no episode ever ends."""

    def __init__(
        self, num_envs: int, device: str, obs: Mapping[str, Any], actions: int, fill: str
    ) -> None:
        """Draw the frames, or make room for what each step draws."""
        self._device = device
        groups = {name: TensorSpec(tuple(shape), dtype) for name, (dtype, *shape) in obs.items()}
        action = ActionSpec("continuous", actions, (-1.0,) * actions, (1.0,) * actions)
        self.spec = EnvSpec(num_envs, groups, action, 0.0, 0, has_final_obs=False)
        self._frames = [self._draw() for _ in range(FRAMES)] if fill == "frames" else []
        self._steps = 0
        self._reward_B = torch.ones(num_envs, device=device)
        self._none_B = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def _draw(self) -> dict[str, torch.Tensor]:
        obs = {}
        for name, s in self.spec.obs.items():
            shape, dtype = (self.spec.num_envs, *s.shape), getattr(torch, s.dtype)
            empty = torch.empty(shape, dtype=dtype, device=self._device)
            obs[name] = empty.normal_() if empty.is_floating_point() else empty.random_(0, 256)
        return obs

    def _observe(self) -> dict[str, torch.Tensor]:
        return self._frames[self._steps % FRAMES] if self._frames else self._draw()

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        """See `VecEnv.reset`."""
        return self._observe()

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        """See `VecEnv.step`; nobody rewrites the frames, so they are the caller's to keep."""
        self._steps += 1
        return StepResult(self._observe(), self._reward_B, self._none_B, self._none_B, None, {})

    def reset_envs(self, envs: list[int]) -> None:
        """See `VecEnv.reset_envs`."""

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """See `VecEnv.randomize_episode_time`."""
        return False

    def state_dict(self) -> None:
        """See `VecEnv.state_dict`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """See `VecEnv.load_state_dict`; there is no state to load."""
        raise NotImplementedError

    def close(self) -> None:
        """See `VecEnv.close`."""
