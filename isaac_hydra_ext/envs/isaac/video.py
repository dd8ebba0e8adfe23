"""Videos of worker 0's env, each generation's way. Runs in the process that hosts the simulation.

3.0 records by its own `video_recorders`; before that `ClipRecorder` does, from `render()`.
A machine that cannot draw costs the videos, not the run.
"""

import importlib
import importlib.util
import sys
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
            needed = {"imageio_ffmpeg": ("clips are written", "'isaac-hydra-ext[video]'")}
            physics = getattr(cfg.sim, "physics", None)
            if type(physics).__name__ == "NewtonCfg":
                needed["pyglet"] = ("Newton's viewer draws", "pyglet")
            for package, (what, wanted) in needed.items():
                if importlib.util.find_spec(package) is None:
                    raise MissingDependencyError(
                        f"--video: {package} is not installed ({what} with it): pip install "
                        f"{wanted}, or leave --video out"
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
        return ClipRecorder(env, self), []


class ClipRecorder(gym.Wrapper):
    """Writes a clip from time to time, under the names that Gymnasium's `RecordVideo` gives.

    That one wants moviepy, which cannot be installed beside mjlab, and holds a clip's pictures in
    memory.
    """

    def __init__(self, env: gym.Env, plan: VideoPlan) -> None:
        """Record what `env.render()` gives, as `plan` says."""
        super().__init__(env)
        self._plan = plan
        self._fps = env.metadata.get("render_fps", 30)
        self._steps = self._pictures = 0
        self._writer: Any = None  # of the clip that is being made
        self._path, self._failed = plan.folder, False

    def step(self, action: Any) -> Any:
        """Step the env, and take a picture while a clip is being made."""
        result = self.env.step(action)
        interval = self._plan.interval
        begins = self._steps % interval == 0 if interval else self._steps == 0
        try:
            if begins and not self._failed:
                self._finish()
                self._begin(f"rl-video-step-{self._steps}")
            if self._writer is not None:
                self._writer.append_data(self.env.render())
                self._pictures += 1
                if self._pictures == self._plan.length:
                    self._finish()
        except (OSError, RuntimeError, ValueError) as e:  # of ffmpeg, or a disk that is full
            self._failed, self._writer = True, None
            print(f"--video: no more videos, {first_line(e)}", file=sys.stderr, flush=True)
        self._steps += 1
        return result

    def close(self) -> None:
        """Finish the clip, however short, and close the env."""
        try:
            self._finish()
        except (OSError, RuntimeError) as e:
            print(f"--video: {self._path} is not finished, {first_line(e)}", file=sys.stderr)
        super().close()

    def _begin(self, name: str) -> None:
        self._plan.folder.mkdir(parents=True, exist_ok=True)
        self._path, self._pictures = self._plan.folder / f"{name}.mp4", 0
        self._writer = importlib.import_module("imageio.v2").get_writer(
            self._unfinished, fps=self._fps, macro_block_size=2, ffmpeg_log_level="error"
        )

    @property
    def _unfinished(self) -> Path:
        return self._path.with_name(f".{self._path.name}.unfinished.mp4")

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            self._unfinished.replace(self._path)
