"""The checkpoint format: one safetensors file holds all that a run goes on from. No pickle, ever.

Tensors (weights, normalisers, optimizer, learning rate) are safetensors; everything else is JSON
in the file's metadata. Written by the learner, read by it and by the commands. Once it is loaded a
file may be deleted by another run's retention: what is needed of it is passed on, never its path.

A file is written under a temporary name, read back, and renamed; older ones are deleted only then.
Whatever ends the process in between, the older ones stay. A temporary file that is being written is
locked, and its lock ends with the process that wrote it, so leftovers can be deleted.

Random generators have no state to save: every stream is seeded by what it is for.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from isaac_hydra_ext.checkpoints.meta import (
    SCHEMA_VERSION,
    check_meta,
    parse_meta,
)
from isaac_hydra_ext.errors import CheckpointError, shown

METADATA_KEY = "isaac_hydra_ext"
DIGEST_KEY = "sha256"
# What safetensors and torch raise on bytes that are not a checkpoint.
UNREADABLE = (SafetensorError, OSError, TypeError, ValueError, RuntimeError, AttributeError)
TEMPORARY_NAMES = ".model_*.safetensors.*.tmp"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file.

    Attributes:
        path: Where it came from.
        tensors: By name, on the CPU.
        meta: JSON data: schema, iteration, env_steps, config, spec, episodes, env_states, totals.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]


def save_checkpoint(
    directory: Path, iteration: int, tensors: Mapping[str, torch.Tensor], meta: dict[str, Any]
) -> Path:
    """Write `model_<iteration>.safetensors` so that it is there whole or not at all.

    Args:
        directory: `checkpoints/` of the run.
        iteration: Learning iterations done.
        tensors: Copied to the CPU here.
        meta: JSON-ready; schema and iteration are added.

    Raises:
        CheckpointError: The file cannot be written, or does not read back; earlier ones that are
            there are intact, and no part of it is left.
    """
    meta = {"schema": SCHEMA_VERSION, "iteration": iteration, **meta}
    on_cpu = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    text = json.dumps(meta)
    data = save(on_cpu, metadata={METADATA_KEY: text, DIGEST_KEY: _digest(on_cpu, text)})
    path = directory / f"model_{iteration}.safetensors"
    temporary = directory / f".{path.name}.{os.getpid()}.tmp"  # sorts and matches as nothing
    try:
        remove_leftovers(directory)
        with temporary.open("wb") as f:
            with contextlib.suppress(OSError):  # some filesystems have no locks; it is not needed
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
            load_checkpoint(temporary)
            temporary.replace(path)
        _fsync_directory(directory)
    except (OSError, CheckpointError) as e:
        if any(directory.glob("model_*.safetensors")):
            raise CheckpointError(
                f"cannot write {path}: {e}; earlier checkpoints are intact"
            ) from e
        raise CheckpointError(
            f"cannot write {path}: {e}; there are no earlier checkpoints there"
        ) from e
    finally:
        with contextlib.suppress(OSError):  # there only if the rename has not happened
            temporary.unlink()
    return path


def remove_leftovers(directory: Path) -> None:
    """Delete what killed processes have left half written; leave what is being written now."""
    for path in directory.glob(TEMPORARY_NAMES):
        with contextlib.suppress(OSError), path.open("rb") as f:  # e.g. locked by its writer
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _digest(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """Hash everything a checkpoint holds; safetensors itself would load flipped bits."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fsync_directory(directory: Path) -> None:
    """Have a name outlast a power cut, where the filesystem can: the file has it already."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def read_meta(path: Path) -> dict[str, Any]:
    """Read and check the metadata alone, of a file that `load_checkpoint` has found sound.

    Raises:
        CheckpointError: Not a checkpoint of this package, damaged, or of a newer schema.
    """
    try:
        with safe_open(path, framework="pt") as f:
            meta = _parse(path, f.metadata() or {})
    except UNREADABLE as e:
        raise CheckpointError(f"{path}: not a readable checkpoint ({shown(e)})") from e
    _checked(path, lambda: check_meta(meta))
    return meta


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a whole checkpoint.

    Raises:
        CheckpointError: As `read_meta`.
    """
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            meta = _parse(path, metadata)
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        digest = _digest(tensors, metadata[METADATA_KEY])
    except UNREADABLE as e:
        raise CheckpointError(f"{path}: not a readable checkpoint ({shown(e)})") from e
    if metadata.get(DIGEST_KEY) != digest:
        raise CheckpointError(f"{path}: damaged: its content does not match its checksum")
    _checked(path, lambda: check_meta(meta))
    return Checkpoint(path, tensors, meta)


def _parse(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not written by isaac_hydra_ext")
    return _checked(path, lambda: parse_meta(metadata[METADATA_KEY]))


def _checked(path: Path, check: Callable[[], Any]) -> Any:
    try:
        return check()
    except ValueError as e:
        raise CheckpointError(f"{path}: {e}") from e
