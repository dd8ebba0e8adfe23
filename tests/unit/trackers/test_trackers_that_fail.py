"""A tracker that fails, hangs or is not installed costs its own curves only, and says so once."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.config.logging_schema import LoggingConfig
from isaac_hydra_ext.errors import MissingDependencyError, RunInterrupted
from isaac_hydra_ext.reports.events import SAMPLES, read_points
from isaac_hydra_ext.trackers import in_thread, local
from isaac_hydra_ext.trackers import trackers as all_trackers
from isaac_hydra_ext.trackers.in_thread import TrackerInThread
from isaac_hydra_ext.trackers.tracker import TrackedRun
from isaac_hydra_ext.trackers.trackers import Trackers, check_trackers

from .test_trackers import opened, rows_of, run_of


class Broken:
    """Raises at one point of its life, and is never asked again."""

    run_id, afterwards = None, ""

    def __init__(self, where: str, error: BaseException) -> None:
        self.where, self.error, self.calls = where, error, 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Any method of a tracker's."""

        def act(*arguments: Any) -> None:
            self.calls += 1
            if name == self.where:
                raise self.error

        return act


def with_broken(monkeypatch: pytest.MonkeyPatch, name: str, tracker: Any) -> None:
    monkeypatch.setitem(all_trackers.TRACKERS, name, ("Broken", lambda run, config: tracker))


@pytest.mark.parametrize("where", ["log", "flush", "close"])
def test_a_tracker_that_fails_is_told_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    broken, said = Broken(where, ValueError("bad\nthing")), []
    with_broken(monkeypatch, "tensorboard", broken)
    trackers = opened(tmp_path, "tensorboard", "csv", warn=said.append)
    for iteration in (1, 2):
        trackers.log({"a": 1.0}, iteration)
        trackers.flush()
    trackers.close()
    assert said == ["Broken: ValueError: bad thing; the run goes on without it"]
    assert broken.calls == {"log": 1, "flush": 2, "close": 5}[where]
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize("where", ["log", "close"])
def test_what_a_service_raises_in_its_thread_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    said: list[str] = []
    with_broken(monkeypatch, "wandb", Broken(where, ValueError("bad")))
    trackers = opened(tmp_path, "wandb", "csv", warn=said.append)
    for iteration in (1, 2):
        trackers.log({"a": 1.0}, iteration)
    trackers.close()
    assert said == ["Broken: ValueError: bad; the run goes on without it"]
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize("flush_s", [0, 10])
def test_tensorboard_goes_on_in_a_directory_that_was_gone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_s: int
) -> None:
    monkeypatch.setattr(local, "FLUSH_S", flush_s)  # 0: its thread meets the missing directory
    run_dir = tmp_path / "run"
    trackers = opened(run_dir, "tensorboard")  # which fails where anything is told
    trackers.log({SAMPLES: 1.0}, 1)
    run_dir.rename(tmp_path / "elsewhere")
    trackers.log({SAMPLES: 2.0}, 2)
    time.sleep(0.2)
    run_dir.mkdir(exist_ok=True)
    for k in range(3, 6):
        trackers.log({SAMPLES: float(k)}, k)
        trackers.flush()
    trackers.close()
    assert read_points(run_dir, SAMPLES, "iterations").steps[-3:].tolist() == [3, 4, 5]


def test_a_tracker_that_does_not_open_is_told_and_the_others_do(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").mkdir()
    said: list[str] = []
    trackers = opened(tmp_path, "csv", "tensorboard", warn=said.append)
    trackers.log({SAMPLES: 1.0}, 1)
    trackers.close()
    assert len(said) == 1 and said[0].startswith("CSV: IsADirectoryError")
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_video_that_cannot_be_shown_leaves_the_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, said = Broken("log_video", ImportError("no moviepy")), []
    with_broken(monkeypatch, "tensorboard", broken)
    trackers = opened(tmp_path, "tensorboard", "csv", warn=said.append)
    for iteration in (1, 2):
        trackers.log_video("Eval/video", tmp_path / "a.mp4", iteration)
    trackers.log({"a": 1.0}, 3)
    assert said == ["Broken: no videos (ImportError: no moviepy)"]
    assert broken.calls == 2


def test_a_second_signal_passes_through_a_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_broken(monkeypatch, "csv", Broken("log", RunInterrupted(2, "now")))
    trackers = opened(tmp_path, "csv")
    with pytest.raises(RunInterrupted):
        trackers.log({SAMPLES: 1.0}, 1)


def test_an_upload_that_never_ends_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never, said = threading.Event(), []
    stuck = Broken("", ValueError())
    stuck.close = never.wait  # type: ignore[attr-defined]
    with_broken(monkeypatch, "wandb", stuck)
    monkeypatch.setattr(in_thread, "CLOSE_LIMIT_S", 0.3)
    opened(tmp_path, "wandb", warn=said.append).close()
    assert "not all points are uploaded" in said[0]
    monkeypatch.setattr(in_thread, "CLOSE_LIMIT_S", 3600.0)
    run = run_of(tmp_path)
    Trackers(LoggingConfig(backends=["wandb"]), run, said.append, hurry=lambda: True).close()
    assert len(said) == 2
    never.set()


def test_a_service_takes_no_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SwanLab would set a handler of SIGINT, which is the run's."""

    class Greedy(Broken):
        def __init__(self, run: TrackedRun, config: LoggingConfig) -> None:
            super().__init__("", ValueError())
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_DFL)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setitem(all_trackers.TRACKERS, "swanlab", ("Greedy", Greedy))
    opened(tmp_path, "swanlab").close()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("wandb", "swanlab"):
        monkeypatch.setitem(sys.modules, name, None)  # what makes `import` fail
        with pytest.raises(MissingDependencyError) as raised:
            check_trackers(LoggingConfig(backends=["csv", name]))
        assert str(raised.value).startswith(f"logging.backends=[{name}]: ")
        assert str(raised.value).endswith(f"pip install 'isaac-hydra-ext[{name}]'")
    check_trackers(LoggingConfig(backends=["csv", "tensorboard"]))


def test_a_video_that_fails_in_a_thread_is_not_its_trackers_end() -> None:
    logged: list[int] = []

    class NoVideos:
        run_id, afterwards = None, ""

        def log(self, metrics: dict[str, float], iteration: int) -> None:
            logged.append(iteration)

        def log_video(self, tag: str, path: Path, iteration: int) -> None:
            raise ValueError("no such codec")

        def flush(self) -> None: ...

        def close(self) -> None: ...

    tracker = TrackerInThread(NoVideos, lambda: False)
    with pytest.raises(ValueError, match="no such codec"):
        tracker.log_video("Eval/video", Path("a.mp4"), 1)
    tracker.log({"a": 1.0}, 2)
    tracker.close()
    assert logged == [2]
