"""Videos: what is drawn, how many pictures there are, and what stands there when there are none."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from isaac_hydra_ext.config.logging_schema import VideoConfig
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.gym import GymVecEnv
from isaac_hydra_ext.errors import MissingDependencyError, RenderError
from isaac_hydra_ext.evaluation.video import (
    VideoWriter,
    check_rendering,
    gif_summary,
    picture,
    remove_unfinished,
)

from ..gym_samples import PREFIX, Counter, register

register()
ID = f"{PREFIX}Painter-v0"


class Painter(Counter):
    """A picture is as bright as the episode is old: 50 a step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}
    picture: Any = staticmethod(lambda clock: np.full((34, 48, 3), 50 * clock, np.uint8))

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> np.ndarray:
        return type(self).picture(self.clock)


class Windowed(Painter):
    metadata = {"render_modes": ["human"]}


for name, entry in (("Painter", Painter), ("Windowed", Windowed)):
    gym.register(f"{PREFIX}{name}-v0", entry, max_episode_steps=4)


def make(env_id: str = ID) -> GymVecEnv:
    env = GymVecEnv(EnvConfig(id=env_id), 2, render=True)
    env.reset(0)
    return env


def record(path: Path, steps: int, **config: Any) -> VideoWriter:
    env = make()
    with VideoWriter(env, path, VideoConfig(**config)) as video:
        video.add()
        for _ in range(steps):
            env.step(torch.zeros(2, 1, dtype=torch.int64))
            video.add()
    env.close()
    return video


def decoded(path: Path) -> np.ndarray:
    iio = pytest.importorskip("imageio.v3", reason="pip install 'isaac-hydra-ext[video]'")
    return iio.imread(path)


pytest.importorskip("imageio_ffmpeg", reason="pip install 'isaac-hydra-ext[video]'")


@pytest.mark.parametrize(("steps", "length", "frames"), [(6, 200, 7), (6, 3, 4), (0, 200, 1)])
def test_one_picture_a_state_until_there_are_enough(
    tmp_path: Path, steps: int, length: int, frames: int
) -> None:
    path = tmp_path / "videos" / "eval_1.mp4"
    assert record(path, steps, length=length).frames == frames
    found = decoded(path)
    assert found.shape == (frames, 34, 48, 3)
    # An episode has 4 steps; the picture after its last is of its end.
    ages = [0, 1, 2, 3, 4, 1, 2][:frames]
    assert found.mean((1, 2, 3)) == pytest.approx([50 * age for age in ages], abs=4)
    assert sorted(p.name for p in path.parent.iterdir()) == ["eval_1.gif", "eval_1.mp4"]


def test_the_speed_is_real_time_where_known_or_as_asked(tmp_path: Path) -> None:
    import imageio.v3 as iio

    for fps, expected in ((None, 25.0), (12.5, 12.5)):
        record(tmp_path / "a.mp4", 3, fps=fps)
        assert iio.immeta(tmp_path / "a.mp4")["fps"] == expected


@pytest.mark.parametrize(
    ("env_id", "seconds"),  # dt, tau, 1 / render_fps, nothing said
    [("Pendulum-v1", 0.05), ("CartPole-v1", 0.02), (ID, 0.04), (f"{PREFIX}Counter-v0", 0.0)],
)
def test_how_long_a_step_is(env_id: str, seconds: float) -> None:
    assert GymVecEnv(EnvConfig(id=env_id), 1).spec.step_dt == pytest.approx(seconds)


def test_the_preview_is_a_moving_image_for_tensorboard(tmp_path: Path) -> None:
    record(tmp_path / "a.mp4", 120, length=120)
    assert decoded(tmp_path / "a.gif").shape[0] == 41, "every third of 121"
    (value,) = gif_summary("Eval/video", tmp_path / "a.mp4").value
    assert (value.tag, value.image.width, value.image.height) == ("Eval/video", 48, 34)
    assert value.image.encoded_image_string.startswith(b"GIF89a")


def test_what_is_cut_short_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoWriter(make(), tmp_path / "a.mp4", VideoConfig()) as video:
        video.add()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / ".eval_1.part.mp4").touch()  # of a killed process
    (tmp_path / "videos" / "eval_1.mp4").touch()
    remove_unfinished(tmp_path)
    assert [p.name for p in (tmp_path / "videos").iterdir()] == ["eval_1.mp4"]


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (None, "NoneType"),
        ([[0]], "list"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\) uint8"),
        (np.zeros((4, 4, 3)), r"\(4, 4, 3\) float64"),
    ],
)
def test_what_is_no_picture_is_refused(
    monkeypatch: pytest.MonkeyPatch, frame: Any, found: str
) -> None:
    monkeypatch.setattr(Painter, "picture", lambda clock: frame)
    with pytest.raises(RenderError, match=rf"must give \[H, W, 3\] uint8, it gave {found}$"):
        picture(make())


def test_an_env_that_raises_or_has_only_windows_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(clock: int) -> None:
        raise OSError("no display")

    monkeypatch.setattr(Painter, "picture", broken)
    with pytest.raises(RenderError, match="cannot be drawn: OSError: no display"):
        check_rendering(make())
    with pytest.raises(RenderError, match="has no render mode rgb_array; it has human"):
        check_rendering(make(f"{PREFIX}Windowed-v0"))


@pytest.mark.parametrize("module", ["imageio_ffmpeg", "imageio.v3"])
def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'isaac-hydra-ext\[video\]'"):
        check_rendering(make())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "videos").touch()
    with pytest.raises(RenderError, match=r"videos/a\.mp4: cannot be written"):
        VideoWriter(make(), tmp_path / "videos" / "a.mp4", VideoConfig())
