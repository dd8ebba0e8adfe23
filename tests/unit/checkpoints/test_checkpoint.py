"""Checkpoints: written whole or not at all, read back to the last bit, refused by name."""

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from isaac_hydra_ext.checkpoints import file as checkpoint_module
from isaac_hydra_ext.checkpoints.file import (
    METADATA_KEY,
    SCHEMA_VERSION,
    load_checkpoint,
    read_meta,
    save_checkpoint,
)
from isaac_hydra_ext.checkpoints.find import list_checkpoints
from isaac_hydra_ext.errors import CheckpointError, RunInterrupted
from isaac_hydra_ext.learner.ppo.ppo import PPO

from ..builders import env_spec, run_config
from ..checkpoint_samples import meta

TENSORS = {
    "w": torch.tensor([[1.0, float("nan")], [-0.0, 1e-45]]),
    "count": torch.tensor(2.0**53 - 1, dtype=torch.float64),
    "mean": torch.tensor([1 / 3, 1e300], dtype=torch.float64),
    "empty": torch.zeros(0, 3),
    "strided": torch.arange(6.0).view(2, 3).t(),
}
META = meta(env_steps=2**60, x=1 / 3, env_states=[{"rng": 2**127}, None])


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def saved(directory: Path, iteration: int = 7) -> Path:
    return save_checkpoint(directory, iteration, TENSORS, META)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    return message


# ------------------------------------------------------------------ round trip


def test_round_trip_is_exact_to_the_last_bit(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert path == tmp_path / "model_7.safetensors"
    loaded = load_checkpoint(path)
    assert loaded.path == path
    assert loaded.meta == {"schema": SCHEMA_VERSION, "iteration": 7, **META}
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert loaded.tensors[name].shape == tensor.shape
        assert bits(loaded.tensors[name]) == bits(tensor)


def test_a_learners_state_survives_with_its_float64_statistics(tmp_path: Path) -> None:
    config = run_config(policy={"normalize_values": True})
    learner = PPO(config, env_spec(), torch.device("cpu"))
    learner.policy.actor_normalizers["policy"].count.fill_(2.0**40 + 1)
    learner.policy.actor_normalizers["policy"].exact_mean.fill_(1 / 3)
    path = save_checkpoint(tmp_path, 1, learner.state_dict(), META)
    other = PPO(run_config(experiment={"seed": 9}, policy={"normalize_values": True}),
                    env_spec(), torch.device("cpu"))  # fmt: skip
    other.load_state_dict(load_checkpoint(path).tensors)
    for name, tensor in learner.state_dict().items():
        assert bits(other.state_dict()[name]) == bits(tensor), name
    assert other.policy.actor_normalizers["policy"].count.item() == 2**40 + 1


def test_nothing_in_the_file_is_a_pickle(tmp_path: Path) -> None:
    data = saved(tmp_path).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header.keys() == {*TENSORS, "__metadata__"}
    assert METADATA_KEY in header["__metadata__"]
    with pytest.raises(Exception, match=r"."):
        pickle.loads(data)


def test_saving_copies_so_that_later_changes_do_not_reach_the_file(tmp_path: Path) -> None:
    flat = torch.zeros(4)
    path = save_checkpoint(tmp_path, 1, {"a": flat[:2], "b": flat[2:]}, META)
    flat.fill_(9)
    assert load_checkpoint(path).tensors["b"].tolist() == [0.0, 0.0]


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "model_1.safetensors")
    refused(tmp_path)


def flipped(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_a_flipped_bit_in_the_header_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    good = path.read_bytes()
    header_end = 8 + int.from_bytes(good[:8], "little")
    accepted = []
    for position in range(0, header_end, 3):
        path.write_bytes(good)
        flipped(path, position, bit=position % 7)
        try:
            load_checkpoint(path)
            accepted.append(position)
        except CheckpointError as e:
            assert str(path) in str(e)
    # Padding may change without harm; anything else is damage.
    assert [p for p in accepted if good[p : p + 1] != b" "] == []


def test_a_flipped_bit_in_the_weights_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    flipped(path, path.stat().st_size - 3, bit=5)
    refused(path)


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    for index, write in enumerate((lambda p: torch.save(Bomb(), p), _pickle(Bomb()))):
        path = tmp_path / f"model_{index}.safetensors"
        write(path)
        refused(path)
    assert not (tmp_path / "executed").exists()


def _pickle(value: object) -> Any:
    return lambda path: path.write_bytes(pickle.dumps(value))


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model_1.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"w": torch.zeros(2)}, path, metadata)
        assert "not written by isaac_hydra_ext" in refused(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": "one"}'])
def test_metadata_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model_1.safetensors"
    save_file({"w": torch.zeros(2)}, path, {METADATA_KEY: text})
    refused(path)


def test_a_newer_schema_says_to_update(tmp_path: Path) -> None:
    path = tmp_path / "model_1.safetensors"
    text = json.dumps({"schema": SCHEMA_VERSION + 1, "iteration": 1})
    save_file({"w": torch.zeros(2)}, path, {METADATA_KEY: text})
    assert f"schema {SCHEMA_VERSION + 1} is newer" in refused(path)
    with pytest.raises(CheckpointError, match="update isaac_hydra_ext"):
        read_meta(path)


# ------------------------------------------------------------------ crashes while saving


@pytest.mark.parametrize("error", [OSError("disk gone"), RunInterrupted(2, "now")])
@pytest.mark.parametrize("where", ["replace", "fsync"])
def test_a_crash_before_the_rename_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        if where == "replace":
            patch.setattr(Path, "replace", fail)
            patch.setattr(os, "replace", fail)
        else:
            patch.setattr(checkpoint_module.os, "fsync", fail)
        expected = CheckpointError if isinstance(error, OSError) else RunInterrupted
        with pytest.raises(expected, match="intact|now"):
            save_checkpoint(tmp_path, 7, {"w": torch.ones(2)}, META)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_leftovers_of_a_killed_save_are_no_checkpoints(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for name in (".model_9.safetensors.123.tmp", "model_8.safetensors.tmp", "xmodel_8.safetensors"):
        (tmp_path / name).write_bytes(b"half")
    assert list_checkpoints(tmp_path) == [path]


# ------------------------------------------------------------------ filesystems


@pytest.mark.parametrize("call", ["flock", "fsync of the directory"])
def test_what_a_filesystem_cannot_do_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fsync = os.fsync

    def refused(descriptor: int, *_: object) -> None:
        if call == "flock" or os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        fsync(descriptor)

    owner, name = (checkpoint_module.fcntl, "flock") if call == "flock" else (os, "fsync")
    monkeypatch.setattr(owner, name, refused)
    path = saved(tmp_path)
    assert load_checkpoint(path).meta["iteration"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["model_7.safetensors"]


def test_a_directory_that_is_none_any_more_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")  # neither to be opened nor to be cleaned up
    with pytest.raises(CheckpointError, match="cannot write .*model_7.*earlier checkpoints"):
        saved(tmp_path / "checkpoints")
