"""Metadata that no run has written is refused wherever it is read, whatever its checksum says."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import (
    DIGEST_KEY,
    METADATA_KEY,
    _digest,
    load_checkpoint,
    read_meta,
)
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.checkpoints.meta import SCHEMA_VERSION
from isaac_hydra_ext.errors import CheckpointError
from isaac_hydra_ext.evaluation.of_checkpoint import config_of
from isaac_hydra_ext.run.episodes import EpisodeTracker
from isaac_hydra_ext.run.resume import resumed_totals

from ..checkpoint_samples import forge, meta

INF, NAN = float("inf"), float("nan")
WHOLE = {"schema": SCHEMA_VERSION, "iteration": 3, **meta(3, (1.0, -2.5))}
DEEP = "[" * 100_000
RUNNING = {"return": [[0.0, 1.5]], "length": [[3, 4]], "partial": [[True, False]]}
READERS: list[Callable[[Path], Any]] = [
    load_checkpoint,
    read_meta,
    lambda path: find_checkpoint(str(path), path.parent),
    lambda path: find_checkpoint(str(path.parent.parent), path.parent),
]


def refused(path: Path, readers: list[Callable[[Path], Any]] = READERS) -> str:
    message = ""
    for read in readers:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message and len(message) < 800
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "model_3.safetensors"


def changed(key: str, value: Any) -> str:
    data = json.loads(json.dumps(WHOLE))
    node, names = data, key.split(".")
    for name in names[:-1]:
        node = node[name]
    if value is KeyError:
        del node[names[-1]]
    else:
        node[names[-1]] = value
    return json.dumps(data)


def test_what_a_run_writes_is_read(path: Path) -> None:
    forge(path, changed("episodes.running", RUNNING))
    loaded = load_checkpoint(path)
    assert loaded.meta == read_meta(path)
    resumed_totals(loaded)
    EpisodeTracker(1, 2, [False]).load_state_dict(loaded.meta["episodes"])
    config_of(loaded)


@pytest.mark.parametrize(
    "text",
    [
        *('{"schema": 1}', "null", "3", '"x"', "[]", "{}", DEEP, '{"a":' * 100_000, "", "\0"),
        *('{"schema": NaN}', '{"schema": 1, "iteration": 1' + "0" * 5000 + "}"),
    ],
    ids=range(12),
)
def test_texts_that_are_no_metadata(path: Path, text: str) -> None:
    refused(forge(path, text))


@pytest.mark.parametrize("value", [True, False, 0, -1, 1.0, "1", None, INF, NAN, 10**40, [1], {}])
def test_schemas_that_are_no_number_of_one(path: Path, value: Any) -> None:
    assert "schema" in refused(forge(path, changed("schema", value)))


def test_a_newer_schema_is_told_apart(path: Path) -> None:
    forge(path, json.dumps({"schema": SCHEMA_VERSION + 1}))  # whatever else there is by then
    assert "newer than this version's" in refused(path)


@pytest.mark.parametrize("value", [KeyError, None, "x", True, -1, 1.5, INF, NAN, 2**63, [], {}])
@pytest.mark.parametrize(
    "key", ["iteration", "env_steps", "episodes.total", "config.rollout.num_workers"]
)
def test_counts_that_are_none(path: Path, key: str, value: Any) -> None:
    assert f"damaged metadata: {key} is " in refused(forge(path, changed(key, value)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("config", v) for v in (KeyError, None, 3, [], "x", {})),
        *(("config.rollout", v) for v in (KeyError, None, 3, [])),
        *(("config.env", v) for v in (KeyError, None, 3, [])),
        *(("config.policy", v) for v in (None, 3, [], "hidden_dims")),
        *(("config.rollout.envs_per_worker", v) for v in (KeyError, 0, None, 2.0, "2")),
        *(("config.ppo.lr", v) for v in (KeyError, "fast", NAN, None, True)),
        *(("spec", v) for v in (KeyError, None, 3, [], {}, {"obs": 3})),
        *(("spec.obs", v) for v in (KeyError, None, [1], {"policy": 3}, {"policy": {}})),
        *(("spec.action", v) for v in (KeyError, None, [1], {"nonsense": 1})),
        *(("episodes", v) for v in (KeyError, None, 3, [], {})),
        *(("episodes.finished", v) for v in (KeyError, None, 3, [1], [[1]], [["a", 1]], [[1, -1]])),
        *(("episodes.finished", [[v, 1]]) for v in (INF, NAN, None, True, 10**40)),
        *(("env_states", v) for v in (KeyError, 3, "x", {}, [3], [[]])),
        *(("totals", v) for v in (KeyError, None, 3, [], {})),
        *(("totals.samples_produced", v) for v in (KeyError, NAN, -1, "x", None, True)),
        *(("totals.wall_s", v) for v in (INF, NAN, "x", [], 10**40)),
        *(("episodes.running", v) for v in (None, 3, {}, {"return": [[0.0, 0.0]]})),
        ("episodes.running", {**RUNNING, "return": [[0.0]]}),
        ("episodes.running", {**RUNNING, "return": [[0.0, NAN]]}),
        ("episodes.running", {**RUNNING, "length": [[1, 2], [3, 4]]}),
        ("episodes.running", {**RUNNING, "length": [[1, -2]]}),
        ("episodes.running", {**RUNNING, "partial": [[0, 1]]}),
    ],
)
def test_values_that_a_run_could_not_go_on_from(path: Path, key: str, value: Any) -> None:
    message = refused(forge(path, changed(key, value)))
    assert "damaged metadata: " in message
    assert key.split(".")[0] in message


@pytest.mark.parametrize(("name", "value"), [("unknown", 1), ("wall_s", None)])
def test_totals_that_no_run_has_are_refused_where_a_run_takes_them_over(
    path: Path, name: str, value: Any
) -> None:
    forge(path, changed(f"totals.{name}", value))
    message = refused(path, [lambda p: resumed_totals(load_checkpoint(p))])
    assert f"damaged metadata: totals.{name} is {value}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config.ppo.gamma", 7),
        ("config.policy.hidden_dims", [[1]]),
        ("config.policy.nonsense", 1),
        ("config.env.id", "../x\n"),
        ("config.env", {}),
        ("config.resume", [3]),
    ],
)
def test_a_configuration_that_cannot_be_is_the_checkpoints_fault(
    path: Path, key: str, value: Any
) -> None:
    forge(path, changed(key, value))
    if key == "config.resume":  # of that run; evaluation has no use for it
        config_of(load_checkpoint(path))
    else:
        refused(path, [lambda p: config_of(load_checkpoint(p))])


# ------------------------------------------------------------------ tensors


def raw(path: Path, dtype: str, shape: list[int], size: int, name: str = "w") -> Path:
    """A file with one tensor as its header has it, and whatever checksum."""
    header = {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    metadata = {"__metadata__": {METADATA_KEY: json.dumps(WHOLE), DIGEST_KEY: "0" * 64}}
    text = json.dumps({**metadata, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\2" * size)
    return path


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        *(("F4", [4], 2), ("F6_E2M3", [4], 3), ("F8_E4M3", [4], 4), ("F8_E8M0", [4], 4)),
        *(("C64", [4], 32), ("U16", [4], 8), ("U64", [4], 32), ("BOOL", [4], 4), ("XX", [4], 4)),
        *(("F32", [0], 0), ("F32", [0, 2**62], 0), ("F32", [2**63, 0], 0), ("F32", [-1], 4)),
        *(("F32", [2**40, 2**40, 0], 0), ("F32", [1] * 1000, 4), ("F32", [2], 4)),
    ],
)
def test_tensors_of_any_dtype_and_shape_are_no_crash(
    path: Path, dtype: str, shape: list[int], size: int
) -> None:
    refused(raw(path, dtype, shape, size), [READERS[0], *READERS[2:]])


@pytest.mark.parametrize("name", ["../../etc/passwd", "/", "", "a\n\0b", "w" * 10_000])
def test_names_of_tensors_are_only_names(path: Path, name: str) -> None:
    tensors = {name: torch.zeros(2)}
    forge(path, json.dumps(WHOLE), tensors)
    assert load_checkpoint(path).tensors.keys() == {name}
    assert _digest(tensors, "") != _digest({"other": torch.zeros(2)}, "")
