"""Weights & Biases and SwanLab: what an offline run writes, and a login that is missing."""

import json
import signal
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.config.logging_schema import LoggingConfig
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.trackers.trackers import Trackers, check_trackers

from .test_trackers import opened, run_of


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
