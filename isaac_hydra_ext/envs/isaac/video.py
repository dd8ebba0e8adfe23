"""Videos of worker 0's env, each generation's way. Runs in the process that hosts the simulation.

3.0 records by its own `video_recorders`; before that Gymnasium's wrapper does, from `render()`.
A machine that cannot draw costs the videos, not the run.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from isaac_hydra_ext.envs.isaac.host import first_line
from isaac_hydra_ext.errors import MissingDependencyError


@dataclass(frozen=True)
class VideoPlan:
    """What to record.

    Attributes:
        folder: Where the clips go.
        length: Of a clip [steps].
        interval: Steps between the beginnings of two clips; 0 records one.
        visualizer: What `--viz` names.
    """

    folder: Path
    length: int
    interval: int
    visualizer: str

    @classmethod
    def of(cls, launcher: Mapping[str, Any], run_dir: Path) -> "VideoPlan":
        """Read `--video_length` and `--video_interval`."""
        length, interval = launcher.get("video_length", 200), launcher.get("video_interval", 0)
        visualizer = str(launcher.get("visualizer") or "")
        return cls(run_dir / "videos", int(length), int(interval), visualizer)

    def prepare(self, cfg: Any) -> str | None:
        """Have the cfg record, where it can; returns the render mode that is needed otherwise.

        Raises:
            MissingDependencyError: A package that is needed to draw or to write.
        """
        if not hasattr(cfg, "video_recorders"):
            needed = {"moviepy": "Gymnasium's recorder writes with it"}
            physics = getattr(cfg.sim, "physics", None)
            if type(physics).__name__ == "NewtonCfg":
                needed["pyglet"] = "Newton's viewer draws with it"
            for package, why in needed.items():
                if importlib.util.find_spec(package) is None:
                    raise MissingDependencyError(
                        f"--video: {package} is not installed ({why}): pip install {package}, "
                        "or leave --video out"
                    )
            return "rgb_array"
        module = importlib.import_module("isaaclab.envs.utils.video_recorder_cfg")
        cfg.video_recorders = [
            module.VideoRecorderCfg(
                output_dir=str(self.folder), video_length=self.length, video_interval=self.interval
            )
        ]
        return None

    def lacks(self, cfg: Any) -> list[str]:
        """Return what to tell where 3.0 would record nothing, in silence."""
        named = self.visualizer not in ("", "none") or getattr(cfg.sim, "visualizer_cfgs", None)
        if named or not hasattr(cfg, "video_recorders"):
            return []
        return ["--video: no videos, 3.0 records what a visualizer draws; add --viz newton or kit"]

    def recorded(self, env: gym.Env) -> tuple[gym.Env, list[str]]:
        """Wrap an env so that it is recorded, if it can be drawn; returns it and what to tell."""
        try:
            drawn = env.unwrapped.render()  # before the first reset
        except Exception as e:  # whatever the graphics stack of this machine raises
            return env, [f"--video: no videos, {type(e).__name__}: {first_line(e)}"]
        if drawn is None:
            return env, ["--video: no videos, Isaac Lab draws nothing here"]
        recorder = gym.wrappers.RecordVideo(
            env,
            str(self.folder),
            step_trigger=lambda step: step % self.interval == 0 if self.interval else step == 0,
            video_length=self.length,
            disable_logger=True,
        )
        return recorder, []
