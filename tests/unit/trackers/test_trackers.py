"""Trackers write what can be read back, survive each other's failures, and say what is missing."""

import csv
import json
import re
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
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.trackers.aliases import RLINF, with_aliases
from isaac_hydra_ext.trackers.hparams import MAIN, hparams_of
from isaac_hydra_ext.trackers.local import RESULTS
from isaac_hydra_ext.trackers.tracker import TrackedRun
from isaac_hydra_ext.trackers.trackers import Trackers

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
    (tmp_path / "run").touch()
    deadline = time.monotonic() + 60.0
    while not said and time.monotonic() < deadline:
        trackers.log({"Train/mean_reward": 1.5}, 3)
        trackers.flush()
    trackers.close()
    assert not told and len(said) == 1
    assert re.search("NotADirectoryError|FileExistsError", said[0])


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
