"""Videos of env 0: an MP4, and beside it a small GIF, which TensorBoard and a README can show.

Runs in the process that plays: the evaluator's, or that of `appo play`. Needs the extra `video`,
whose wheels bring ffmpeg.
"""

import contextlib
import importlib
import struct
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from isaac_hydra_ext.config.logging_schema import VideoConfig
from isaac_hydra_ext.errors import IsaacHydraExtError, MissingDependencyError, RenderError

if TYPE_CHECKING:  # reports name videos, and need no torch
    from isaac_hydra_ext.envs.contract import VecEnv

DIRECTORY = "videos"  # in a run's
UNFINISHED = ".{}.part.mp4"
DEFAULT_FPS = 30.0
PREVIEW_FRAMES, PREVIEW_WIDTH = 50, 320  # at most, of the GIF
_GIF_SIZE = struct.Struct("<6xHH")


def check_rendering(env: "VecEnv") -> None:
    """Draw one picture and look at it.

    Raises:
        RenderError: There is none, or it is none.
        MissingDependencyError: Nothing could write it.
    """
    _import("imageio_ffmpeg")
    _import("imageio.v3")
    picture(env)


def picture(env: "VecEnv") -> np.ndarray:
    """Return `env.render()`, checked to be [H, W, 3] uint8.

    Raises:
        RenderError: It is something else, or the env raised.
    """
    try:
        frame = env.render()
    except IsaacHydraExtError:
        raise
    except Exception as e:  # a graphics driver's, a simulator's, a user's own render
        raise RenderError(f"the env cannot be drawn: {type(e).__name__}: {e}") from e
    shape, dtype = getattr(frame, "shape", None), getattr(frame, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
        found = type(frame).__name__ if shape is None else f"{shape} {dtype}"
        raise RenderError(f"the env's render() must give [H, W, 3] uint8, it gave {found}")
    return frame


class VideoWriter:
    """One video; leaving it without an error gives the files their names."""

    def __init__(self, env: "VecEnv", path: Path, config: VideoConfig) -> None:
        """Open it.

        Args:
            env: Made to render.
            path: Of the MP4; the GIF has the same stem.
            config: `length` and `fps` are read.

        Raises:
            RenderError: It cannot be written there.
            MissingDependencyError: The extra `video` is missing.
        """
        self._env, self._path, self._length = env, path, config.length
        real_time = 1.0 / env.spec.step_dt if env.spec.step_dt else DEFAULT_FPS
        self._fps = config.fps or real_time
        self._stride = -(-config.length // PREVIEW_FRAMES)
        self._part = path.with_name(UNFINISHED.format(path.stem))
        self._preview: list[np.ndarray] = []
        self.frames = 0
        _import("imageio_ffmpeg")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = _import("imageio.v2").get_writer(
                self._part, fps=self._fps, macro_block_size=2, ffmpeg_log_level="error"
            )
        except (OSError, RuntimeError) as e:
            raise RenderError(f"{path}: cannot be written ({e})") from e

    def add(self) -> None:
        """Take a picture, until there is one of the first state and of `length` steps."""
        if self.frames > self._length:
            return
        frame = picture(self._env)
        try:
            self._writer.append_data(frame)
        except (OSError, ValueError, RuntimeError) as e:
            raise RenderError(f"{self._path}: cannot be written ({e})") from e
        if self.frames % self._stride == 0:
            step = -(-frame.shape[1] // PREVIEW_WIDTH)
            self._preview.append(frame[::step, ::step].copy())
        self.frames += 1

    def __enter__(self) -> "VideoWriter":
        """Take pictures with `add`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the files, or leave none."""
        try:
            self._writer.close()
            if kind is None and self.frames:
                duration = 1000.0 * self._stride / self._fps
                _import("imageio.v3").imwrite(
                    preview_of(self._path), self._preview, duration=duration, loop=0
                )
                self._part.replace(self._path)
        except (OSError, ValueError, RuntimeError) as e:
            raise RenderError(f"{self._path}: cannot be written ({e})") from e
        finally:
            self._part.unlink(missing_ok=True)


def preview_of(path: Path) -> Path:
    """Return where the GIF of an MP4 is."""
    return path.with_suffix(".gif")


def remove_unfinished(run_dir: Path) -> None:
    """Delete what a killed process has left half written."""
    with contextlib.suppress(OSError):
        for path in (run_dir / DIRECTORY).glob(UNFINISHED.format("*")):
            path.unlink()


def gif_summary(tag: str, path: Path) -> Any:
    """Return an MP4's preview as what a TensorBoard `FileWriter` takes: a moving image.

    Args:
        tag: As in TensorBoard.
        path: Of the MP4.

    Raises:
        OSError: There is no preview.
    """
    Summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
    data = preview_of(path).read_bytes()
    width, height = _GIF_SIZE.unpack_from(data)
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=data)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise MissingDependencyError(
            f"a film cannot be written: {e}; install what it takes: "
            "pip install 'isaac-hydra-ext[video]'"
        ) from e
