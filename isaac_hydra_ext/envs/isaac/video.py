"""Pictures and videos of an env, each generation's way. Runs in the process that simulates.

2.x draws in `render()`, 3.0 by a visualizer: the one that `--viz` names, else Newton's viewer
without a window, which needs no display and no GPU. 3.0's own recorder wants moviepy 1 and keeps a
clip's pictures in memory; `ClipRecorder` does not.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from isaac_hydra_ext.envs.isaac.host import first_line
from isaac_hydra_ext.errors import MissingDependencyError, RenderError

VIEW = (640, 480)  # [pixels]


def prepare_pictures(cfg: Any, visualizer: str | None) -> str | None:
    """Have the env of a cfg be drawn.

    Args:
        cfg: The task's, before the env is made.
        visualizer: What `--viz` names.

    Returns:
        The render mode to make the env with.

    Raises:
        RenderError: Nothing can draw on this machine, or nothing is to.
    """
    if not hasattr(cfg, "video_recorders"):
        return "rgb_array"
    if visualizer == "none":
        raise RenderError("--viz none leaves nothing that draws")
    if visualizer is None:
        # Without a display the viewer draws off screen. Told `headless` it would, too, but then it
        # begins later, and shows neither ground nor colours (seen in 3.0.0).
        os.environ.pop("DISPLAY", None)
        try:
            pyglet = importlib.import_module("pyglet")
            pyglet.options["headless"] = True
            importlib.import_module("pyglet.display").get_display()
            viewer = importlib.import_module("isaaclab_visualizers.newton").NewtonGLVisualizerCfg
        except Exception as e:  # whatever the graphics stack of this machine raises
            raise RenderError(
                f"Newton's viewer cannot draw here, {type(e).__name__}: {first_line(e)} (Debian: "
                "apt-get install libegl1 libgl1)"
            ) from e
        width, height = VIEW
        cfg.sim.visualizer_cfgs = [viewer(window_width=width, window_height=height)]
    return None


def picture(core: Any) -> np.ndarray | None:
    """Return what an env looks like now, [H, W, 3] uint8; None where nothing draws."""
    visualizers = getattr(getattr(core, "sim", None), "visualizers", None)
    if visualizers is None:
        return core.render()
    drawing = (v for v in visualizers if hasattr(v, "render_rgb_array"))
    return next((np.asarray(v.render_rgb_array()) for v in drawing), None)


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
        """Read `--video_length` and `--video_interval`.

        Raises:
            MissingDependencyError: A package that is needed to write.
        """
        if importlib.util.find_spec("imageio_ffmpeg") is None:
            raise MissingDependencyError(
                "--video: imageio_ffmpeg is not installed (clips are written with it): pip install "
                "'isaac-hydra-ext[video]', or leave --video out"
            )
        length, interval = launcher.get("video_length", 200), launcher.get("video_interval", 0)
        return cls(run_dir / "videos", int(length), int(interval))

    def recorded(
        self, env: gym.Env, draw: Callable[[], np.ndarray | None]
    ) -> tuple[gym.Env, list[str]]:
        """Wrap an env so that it is recorded, if it can be drawn; returns it and what to tell."""
        try:
            drawn = draw()  # before the first reset
        except Exception as e:  # as above
            return env, [f"--video: no videos, {type(e).__name__}: {first_line(e)}"]
        if drawn is None:
            return env, ["--video: no videos, Isaac Lab draws nothing here"]
        return ClipRecorder(env, self, draw), []


class ClipRecorder(gym.Wrapper):
    """Writes a clip from time to time, under the names that Gymnasium's `RecordVideo` gives.

    That one wants moviepy, which cannot be installed beside mjlab, and holds a clip's pictures in
    memory.
    """

    def __init__(
        self, env: gym.Env, plan: VideoPlan, draw: Callable[[], np.ndarray | None]
    ) -> None:
        """Record what `draw` gives, as `plan` says."""
        super().__init__(env)
        self._plan, self._draw = plan, draw
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
                self._writer.append_data(self._draw())
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
