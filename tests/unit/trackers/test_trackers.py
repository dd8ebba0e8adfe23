"""Trackers write what can be read back, survive each other's failures, and say what is missing."""

import csv
import json
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from tensorboard import default, program

from isaac_hydra_ext.config.logging_schema import LoggingConfig, WandbConfig
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError, RunInterrupted
from isaac_hydra_ext.trackers import in_thread
from isaac_hydra_ext.trackers import trackers as all_trackers
from isaac_hydra_ext.trackers.aliases import RLINF, with_aliases
from isaac_hydra_ext.trackers.hparams import MAIN, hparams_of
from isaac_hydra_ext.trackers.in_thread import TrackerInThread
from isaac_hydra_ext.trackers.local import RESULTS
from isaac_hydra_ext.trackers.tracker import TrackedRun
from isaac_hydra_ext.trackers.trackers import Trackers, check_trackers

from ..builders import run_config

CONFIG = {"ppo": {"lr": 0.5}, "experiment": {"name": "x"}}


def run_of(directory: Path, **known: Any) -> TrackedRun:
    directory.mkdir(parents=True, exist_ok=True)
    return TrackedRun(directory, project="pendulum", config=CONFIG, **known)


def opened(
    directory: Path, *backends: str, warn: Callable[[str], None] = pytest.fail, **known: Any
) -> Trackers:
    config = LoggingConfig(backends=list(backends), wandb=WandbConfig(mode="offline", tags=["a"]))
    return Trackers(config, run_of(directory, **known), warn)


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------ files


def test_tensorboard_points_have_their_tag_value_and_iteration(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trackers = opened(tmp_path, "tensorboard")
    trackers.log({"Train/mean_reward": 1.5}, 3)
    trackers.log({"Train/mean_reward": 2.5, "Loss/value": 4.0}, 4)
    trackers.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("Train/mean_reward")] == [(3, 1.5), (4, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("Loss/value")] == [(4, 4.0)]


def test_what_tensorboards_thread_cannot_write_is_one_line_of_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)  # prints a traceback
    said: list[str] = []
    trackers = opened(tmp_path / "run", "tensorboard", warn=said.append)
    (tmp_path / "run").rename(tmp_path / "moved")
    deadline = time.monotonic() + 60.0
    while not said and time.monotonic() < deadline:
        trackers.log({"Train/mean_reward": 1.5}, 3)
        trackers.flush()
    trackers.close()
    assert not told and len(said) == 1 and "FileNotFoundError" in said[0]


def test_tensorboards_hparams_tab_has_the_settings_and_the_last_results(tmp_path: Path) -> None:
    for lr, reward in ((0.001, 7.0), (0.0003, 9.0)):
        config = run_config(ppo={"lr": lr}, env={"id": "Pendulum-v1"})
        told = hparams_of(config, [f"ppo.lr={lr}", "logging.every=2"])
        run = opened(tmp_path / f"lr={lr}", "tensorboard", hparams=told)
        for iteration in (1, 2):
            metrics = {"Train/mean_reward": reward * iteration, "Perf/total_fps": 100.0}
            run.log(metrics, iteration)
        run.close()
    server = program.TensorBoard(default.get_plugins())
    server.configure(logdir=str(tmp_path), port=0, load_fast="false", bind_all=False)
    url = server.launch() + "data/plugin/hparams/"

    def ask(what: str, **body: Any) -> dict[str, Any]:
        data = json.dumps({"experimentName": "", **body}).encode()
        request = Request(url + what, data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)

    deadline = time.monotonic() + 60
    while len(found := ask("experiment").get("hparamInfos", [])) == 0:  # it is still reading
        assert time.monotonic() < deadline
        time.sleep(0.2)
    names = {info["name"] for info in found}
    assert {*MAIN} <= names and "policy.squash" not in names and "logging.every" not in names
    columns = [{"hparam": "ppo.lr", "order": "ORDER_ASC"}]
    columns += [{"metric": {"tag": tag, "group": ""}} for tag in RESULTS]
    status = ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_FAILURE"]
    groups = ask("session_groups", allowedStatuses=status, colParams=columns, startIndex=0,
                 sliceSize=9)["sessionGroups"]  # fmt: skip
    seen = [
        {
            "lr": group["hparams"]["ppo.lr"],
            **{v["name"]["tag"]: v["value"] for v in group["metricValues"]},
        }
        for group in groups
    ]
    assert seen == [
        {"lr": 0.0003, "Train/mean_reward": 18.0, "Perf/total_fps": 100.0},
        {"lr": 0.001, "Train/mean_reward": 14.0, "Perf/total_fps": 100.0},
    ]


def test_tensorboard_is_imported_by_its_own_backend_alone(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import isaac_hydra_ext.appo_runner
from isaac_hydra_ext.config.schema import LoggingConfig
from isaac_hydra_ext.trackers.local import RESULTS
from isaac_hydra_ext.trackers.tracker import TrackedRun
from isaac_hydra_ext.trackers.trackers import Trackers

for backend in ("csv", "tensorboard"):
    run = TrackedRun(Path({str(tmp_path)!r}), project="p", config={{}})
    trackers = Trackers(LoggingConfig(backends=[backend]), run, print)
    trackers.log({{"a": 1.0}}, 1)
    trackers.close()
    print(any(name.split(".")[0] == "tensorboard" for name in sys.modules))
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["False", "True"], done.stderr


def test_csv_has_a_row_an_iteration_and_takes_columns_that_come_later(tmp_path: Path) -> None:
    trackers = opened(tmp_path, "csv")
    trackers.log({"Loss/value": 1.5}, 1)
    trackers.log({"Loss/value": 2.5, 'Episode_Reward/a, "b"': 0.1}, 2)
    trackers.log({"Loss/value": float("nan")}, 3)
    assert len(rows_of(tmp_path)) == 3, "each row is in the file at once"
    trackers.close()
    later = 'Episode_Reward/a, "b"'
    assert rows_of(tmp_path) == [
        {"iteration": "1", "Loss/value": "1.5", later: ""},
        {"iteration": "2", "Loss/value": "2.5", later: "0.1"},
        {"iteration": "3", "Loss/value": "nan", later: ""},
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_an_evaluation_that_comes_later_takes_no_row_out_of_the_csv(tmp_path: Path) -> None:
    trackers = opened(tmp_path, "csv")
    for iteration in range(1, 38):
        trackers.log({"a": float(iteration)}, iteration)
    trackers.log({"Eval/mean_return": 5.0}, 10)
    trackers.close()
    rows = rows_of(tmp_path)
    assert [int(row["iteration"]) for row in rows] == [*range(1, 38), 10]
    assert rows[-1]["Eval/mean_return"] == "5.0"


def test_a_resumed_runs_csv_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    trackers = opened(first, "csv")
    for iteration in range(1, 6):
        trackers.log({"a": float(iteration)}, iteration)
    with (first / "metrics.csv").open("a") as file:
        file.write("\n6,")  # the run was killed here
    trackers = opened(second, "csv", first=3, previous_dir=first)
    trackers.log({"b": 40.0}, 4)
    trackers.close()
    found = [(row["iteration"], row["a"], row["b"]) for row in rows_of(second)]
    assert found == [("1", "1.0", ""), ("2", "2.0", ""), ("3", "3.0", ""), ("4", "", "40.0")]


def test_a_run_that_had_no_csv_begins_one_where_it_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    trackers = opened(tmp_path / "now", "csv", first=3, previous_dir=tmp_path / "before")
    trackers.log({"a": 1.0}, 4)
    trackers.close()
    assert rows_of(tmp_path / "now") == [{"iteration": "4", "a": "1.0"}]


# ------------------------------------------------------------------ Weights & Biases, SwanLab


def wandb_records(directory: Path) -> dict[str, list[Any]]:
    """What the file of an offline run that has ended holds, by kind of record.

    W&B's own process still writes it when `finish` has returned.
    """
    (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60.0
    while "exit" not in (found := records_of(path)):  # the last one
        assert time.monotonic() < deadline, f"W&B has not ended it: {list(found)}"
        time.sleep(0.05)
    return found


def records_of(path: Path) -> dict[str, list[Any]]:
    """What is in the file, a LevelDB log.

    After 7 bytes it has blocks of 32 KiB with records of checksum, length and type.
    """
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    found: dict[str, list[Any]] = {}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):  # not all of it is written yet
            break
        if kind in (1, 4):  # full, or last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            name = str(record.WhichOneof("record_type"))
            found.setdefault(name, []).append(getattr(record, name))
            whole = b""
    return found


def test_wandb_offline_keeps_points_config_and_the_runs_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_PROJECT", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    first, second = tmp_path / "first", tmp_path / "second"
    for directory, known in ((first, {}), (second, {"first": 2, "previous_dir": first})):
        trackers = opened(directory, "wandb", **known)
        trackers.log({"Train/mean_reward": 1.5}, 3)
        trackers.log({"Train/mean_reward": 2.5, "Loss/value": 4.0}, 4)
        (command,) = trackers.close()
        (offline,) = directory.glob("wandb/offline-run-*")
        assert command == f"wandb sync {offline}"
    assert capfd.readouterr() == ("", ""), "the terminal is the console's"
    records = wandb_records(first)
    (run,) = records["run"]
    assert (run.project, run.display_name, list(run.tags)) == ("pendulum", "first", ["a"])
    config = {"/".join(u.nested_key) or u.key: json.loads(u.value_json) for u in run.config.update}
    assert config["ppo"] == {"lr": 0.5}
    points = []
    for entry in records["history"]:
        items = {"/".join(i.nested_key) or i.key: i.value_json for i in entry.item}
        points.append((entry.step.num, float(items["Train/mean_reward"])))
    assert points == [(3, 1.5), (4, 2.5)]
    assert json.loads((first / "trackers.json").read_text()) == {"wandb": run.run_id}
    assert wandb_records(second)["run"][0].run_id == run.run_id


def test_wandb_keeps_an_evaluation_that_ends_after_later_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    trackers = opened(tmp_path, "wandb")
    for iteration in range(1, 6):
        trackers.log({"Train/mean_reward": 1.0}, iteration)
    trackers.log({"Eval/mean_return": 5.0, "Eval/iteration": 3.0}, 3)
    trackers.log({"Train/mean_reward": 2.0}, 6)
    trackers.close()
    records = wandb_records(tmp_path)
    found = {}
    for entry in records["history"]:
        items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in entry.item}
        found |= {(entry.step.num, key): value for key, value in items.items()}
    assert found[5, "Eval/mean_return"] == 5.0 and found[5, "Eval/iteration"] == 3
    assert found[6, "Train/mean_reward"] == 2.0
    globs = {m.glob_name: m.step_metric for m in records["metric"]}
    assert globs["Eval/*"] == "Eval/iteration"


def test_swanlab_offline_writes_a_run(tmp_path: Path) -> None:
    pytest.importorskip("swanlab")
    before = signal.getsignal(signal.SIGINT)
    config = LoggingConfig(backends=["swanlab"])
    config.swanlab.mode = "offline"
    trackers = Trackers(config, run_of(tmp_path / "run"), pytest.fail)
    trackers.log({"Train/mean_reward": 1.5, "Episode_Reward/a b": 2.0}, 3)
    assert signal.getsignal(signal.SIGINT) is before
    (command,) = trackers.close()
    (path,) = (tmp_path / "run" / "swanlab").glob("run-*/run-*.swanlab")
    assert command == f"swanlab sync {path.parent}"
    assert b"Train/mean_reward" in path.read_bytes()
    assert "0.5" in next(path.parent.glob("files/config.yaml")).read_text()


# ------------------------------------------------------------------ what fails


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


def test_a_tracker_that_does_not_open_is_told_and_the_others_do(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").mkdir()
    said: list[str] = []
    trackers = opened(tmp_path, "csv", "tensorboard", warn=said.append)
    trackers.log({"a": 1.0}, 1)
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
        trackers.log({"a": 1.0}, 1)


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


def test_wandb_without_a_login_is_refused_unless_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    config = LoggingConfig(backends=["wandb"])
    with pytest.raises(ConfigError, match="not logged in; say `wandb login`"):
        check_trackers(config)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(config)
    monkeypatch.delenv("WANDB_MODE")
    config.wandb.mode = "disabled"
    check_trackers(config)


# ------------------------------------------------------------------ names and knobs


def test_aliases_are_the_same_numbers_and_no_name_is_ours() -> None:
    metrics = {"Train/mean_reward": 3.0, "Loss/value": 2.0, "Curriculum/levels": 1.0}
    assert with_aliases(metrics, "none") == metrics
    assert with_aliases(metrics, "rlinf") == {
        **metrics, "env/return": 3.0, "train/critic/value_loss": 2.0,
    }  # fmt: skip
    assert not set(RLINF) & set(RLINF.values())


def test_the_trackers_knobs_compose(tmp_path: Path) -> None:
    typed = [
        "logging.backends=[tensorboard,csv]", "logging.wandb.mode=offline",
        "logging.wandb.tags=[a]", "logging.aliases=rlinf", f"experiment.output_dir={tmp_path}",
    ]  # fmt: skip
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        config = load_run_config(compose("train_appo", overrides=typed), typed)
        assert config.logging.wandb == WandbConfig(mode="offline", tags=["a"])
        assert config.logging.swanlab.mode is None
        bad = [*typed, "logging.wandb.mode=ofline"]
        with pytest.raises(ConfigError, match=r"logging.wandb.mode=ofline: .*'offline'"):
            load_run_config(compose("train_appo", overrides=bad), bad)
    with pytest.raises(ConfigError, match="logging.wandb.projet: unknown key"):
        load_run_config({"logging": {"wandb": {"projet": "x"}}})


def test_a_video_becomes_a_gif_in_tensorboard(tmp_path: Path) -> None:
    iio = pytest.importorskip("imageio.v3")
    frames_THWC = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    iio.imwrite(tmp_path / "a.gif", frames_THWC)  # beside a.mp4, as the evaluator leaves them
    trackers = opened(tmp_path / "run", "tensorboard")
    trackers.log_video("Eval/video", tmp_path / "a.mp4", 3)
    trackers.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run")).Reload()
    (image,) = events.Images("Eval/video")
    assert (image.step, image.width, image.height) == (3, 48, 32)
    assert image.encoded_image_string.startswith(b"GIF")


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
