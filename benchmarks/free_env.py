"""An environment that costs next to nothing: noise as observations, on any device.

What is left of a training in it is the trainer. Registered like any package's own environment, by
an entry point that `installed` puts on the path of this process and of those it starts.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from isaac_hydra_ext.config import EnvConfig
from isaac_hydra_ext.envs.vec_env import (
    ActionSpec,
    EnvSpec,
    StepResult,
    TaskDescription,
    TensorSpec,
)

KIND = "benchmark_free"
DEFAULT_NUM_ENVS = 4096
EPISODE = 1000  # steps; every env ends one of them now and then
METADATA = "Metadata-Version: 2.1\nName: appo-free-env\nVersion: 0\n"


def describe(env_config: EnvConfig, device: str = "auto") -> TaskDescription:
    """See `isaac_hydra_ext.envs.registry.Adapter`."""
    return TaskDescription(DEFAULT_NUM_ENVS, {}, dict(env_config.kwargs))


def make(env_config: EnvConfig, *, num_envs: int, device: str, **_: Any) -> "FreeEnv":
    """See `isaac_hydra_ext.envs.registry.Adapter`."""
    return FreeEnv(num_envs, device, **env_config.kwargs)


class FreeEnv:
    """Fills a few observation tensors once, and gives one after the other."""

    def __init__(
        self,
        num_envs: int,
        device: str,
        obs: int | list[int] = 48,
        critic: int = 0,
        actions: int = 12,
        dtype: str = "float32",
    ) -> None:
        """Draw the observations.

        Args:
            num_envs: B.
            device: Of all tensors.
            obs: Shape of the group `policy`.
            critic: Size of the group `critic`; 0: there is none.
            actions: Their number.
            dtype: Of `policy`; uint8 for a camera.
        """
        shapes = {"policy": [obs] if isinstance(obs, int) else list(obs)}
        if critic:
            shapes["critic"] = [critic]
        generator = torch.Generator(device).manual_seed(1)
        self._obs = [
            {group: _noise((num_envs, *s), dtype, generator) for group, s in shapes.items()}
            for _ in range(2)
        ]
        self._reward_B = torch.randn(num_envs, generator=generator, device=device)
        self._never_B = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._ends_B = torch.arange(num_envs, device=device) % EPISODE
        self._steps = 0
        bounds = (-1e9,) * actions, (1e9,) * actions
        self.spec = EnvSpec(
            num_envs=num_envs,
            obs={g: TensorSpec(tuple(s), dtype) for g, s in shapes.items()},
            action=ActionSpec("continuous", actions, *bounds),
            step_dt=0.02,
            max_episode_length=EPISODE,
            has_final_obs=False,
        )

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        """See `VecEnv`."""
        return self._obs[0]

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        """See `VecEnv`; nobody writes into what it gives."""
        self._steps += 1
        truncated_B = self._ends_B == self._steps % EPISODE
        obs = self._obs[self._steps % 2]
        return StepResult(obs, self._reward_B, self._never_B, truncated_B, None, {})

    def reset_envs(self, envs: list[int]) -> None:
        """See `VecEnv`: only `reset` can."""

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """See `VecEnv`: its ends are spread already."""
        return False

    def state_dict(self) -> None:
        """See `VecEnv`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Never called: there is no state."""
        raise AssertionError("this environment has no state")

    def close(self) -> None:
        """See `VecEnv`."""


def _noise(shape: tuple[int, ...], dtype: str, generator: torch.Generator) -> torch.Tensor:
    device = generator.device
    if dtype == "uint8":
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator, device=device)
    return torch.randn(shape, generator=generator, device=device)


@contextmanager
def installed() -> Iterator[None]:
    """Register the environment for this process and those that it starts."""
    with TemporaryDirectory() as directory:
        info = Path(directory, "appo_free_env-0.dist-info")
        info.mkdir()
        (info / "METADATA").write_text(METADATA)
        entry = f"[isaac_hydra_ext.envs]\n{KIND} = benchmarks.free_env\n"
        (info / "entry_points.txt").write_text(entry)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [directory, before]))
        sys.path.insert(0, directory)
        try:
            yield
        finally:
            sys.path.remove(directory)
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before
