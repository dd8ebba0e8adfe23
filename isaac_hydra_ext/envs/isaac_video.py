"""Videos of worker 0's env, each generation's way. Runs in the process that hosts the simulation.

3.0 records by its own `video_recorders`; before that Gymnasium's wrapper does, from `render()`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from isaac_hydra_ext.errors import MissingDependencyError


@dataclass(frozen=True)
class VideoPlan:
    """What to record.

    Attributes:
        folder: Where the clips go.
        length: Of a clip [steps].
        interval: Steps between the beginnings of two clips; 0 records one.
    """

    folder: Path
    length: int
    interval: int

    @classmethod
    def of(cls, launcher: Mapping[str, Any], run_dir: Path) -> "VideoPlan":
        """Read `--video_length` and `--video_interval`."""
        length, interval = launcher.get("video_length", 200), launcher.get("video_interval", 0)
        return cls(run_dir / "videos", int(length), int(interval))

    def prepare(self, cfg: Any) -> str | None:
        """Have the cfg record, where it can; returns the render mode that is needed otherwise."""
        if not hasattr(cfg, "video_recorders"):
            return "rgb_array"
        module = importlib.import_module("isaaclab.envs.utils.video_recorder_cfg")
        cfg.video_recorders = [
            module.VideoRecorderCfg(
                output_dir=str(self.folder), video_length=self.length, video_interval=self.interval
            )
        ]
        return None

    def recorded(self, env: gym.Env) -> gym.Env:
        """Wrap an env that renders.

        Raises:
            MissingDependencyError: Gymnasium's recorder needs moviepy.
        """
        try:
            return gym.wrappers.RecordVideo(
                env,
                str(self.folder),
                step_trigger=lambda step: step % self.interval == 0 if self.interval else step == 0,
                video_length=self.length,
                disable_logger=True,
            )
        except gym.error.DependencyNotInstalled as e:
            raise MissingDependencyError(f"--video: {e}; or leave it out") from e
