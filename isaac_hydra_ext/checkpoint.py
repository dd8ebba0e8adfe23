"""Checkpoints: one safetensors file holds all that a run goes on from. No pickle, ever.

Tensors (weights, normalisers, optimizer, learning rate) are safetensors; everything else is JSON
in the file's metadata. Written by the learner; workers read their env's state from it.

Random generators have no state to save: every stream is seeded by what it is for (`seeding.py`).
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from isaac_hydra_ext.config import CheckpointConfig
from isaac_hydra_ext.errors import CheckpointError

SCHEMA_VERSION = 1
METADATA_KEY = "isaac_hydra_ext"
DIGEST_KEY = "sha256"
FILE_NAME = re.compile(r"model_(\d+)\.safetensors")


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
        CheckpointError: The file cannot be written; earlier ones are intact.
    """
    meta = {"schema": SCHEMA_VERSION, "iteration": iteration, **meta}
    on_cpu = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    text = json.dumps(meta)
    data = save(on_cpu, metadata={METADATA_KEY: text, DIGEST_KEY: _digest(on_cpu, text)})
    path = directory / f"model_{iteration}.safetensors"
    temporary = directory / f".{path.name}.{os.getpid()}.tmp"  # sorts and matches as nothing
    try:
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
        _fsync_directory(directory)
    except OSError as e:
        raise CheckpointError(f"cannot write {path}: {e}; earlier checkpoints are intact") from e
    finally:
        temporary.unlink(missing_ok=True)  # there only if the rename has not happened
    return path


def _digest(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """Hash everything a checkpoint holds; safetensors itself would load flipped bits."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fsync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_meta(path: Path) -> dict[str, Any]:
    """Read the metadata alone, of a file that `load_checkpoint` has found sound.

    Raises:
        CheckpointError: Not a checkpoint of this package, damaged, or of a newer schema.
    """
    try:
        with safe_open(path, framework="pt") as f:
            return _parse(path, f.metadata() or {})
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path}: not a readable checkpoint ({e})") from e


def _parse(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not written by isaac_hydra_ext")
    try:
        meta = json.loads(metadata[METADATA_KEY])
        schema = int(meta["schema"])
    except (ValueError, KeyError, TypeError) as e:
        raise CheckpointError(f"{path}: damaged metadata ({e})") from e
    if schema > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema {schema} is newer than this version's {SCHEMA_VERSION}; "
            "update isaac_hydra_ext"
        )
    return meta


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a whole checkpoint.

    Raises:
        CheckpointError: As `read_meta`.
    """
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            meta = _parse(path, metadata)
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path}: not a readable checkpoint ({e})") from e
    if metadata.get(DIGEST_KEY) != _digest(tensors, metadata[METADATA_KEY]):
        raise CheckpointError(f"{path}: damaged: its content does not match its checksum")
    return Checkpoint(path, tensors, meta)


def load_env_state(path: Path, worker: int) -> dict[str, Any] | None:
    """Read the env state of one worker; None where the checkpoint holds none."""
    states = read_meta(path)["env_states"]
    return states[worker] if states and worker < len(states) else None


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a `checkpoints/` directory, oldest first."""
    found = [(int(m[1]), p) for p in directory.glob("*") if (m := FILE_NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found)]


def find_checkpoint(resume: str, runs: Path) -> tuple[Checkpoint, list[str]]:
    """Load what `resume` names.

    Args:
        resume: A checkpoint file, a run directory (its newest checkpoint), or `latest` (the
            newest run under `runs` that has one).
        runs: `<experiment.output_dir>/<experiment.name>`.

    Returns:
        The checkpoint, and a line for each damaged newer file that was passed over.

    Raises:
        CheckpointError: Nothing there, or a named file that does not load.
    """
    path = Path(resume).expanduser()
    if resume != "latest" and path.is_file():
        return load_checkpoint(path), []
    if resume != "latest" and not path.is_dir():
        raise CheckpointError(f"resume={resume}: no such file or directory")
    candidates = [path]
    if resume == "latest":
        candidates = sorted((p for p in runs.glob("*") if p.is_dir()), reverse=True)
    notes: list[str] = []
    for run in candidates:
        for checkpoint in reversed(list_checkpoints(run / "checkpoints")):
            try:
                return load_checkpoint(checkpoint), notes
            except CheckpointError as e:
                notes.append(f"DAMAGED checkpoint passed over: {e}")
    where = f" under {runs}" if resume == "latest" else ""
    raise CheckpointError(
        f"resume={resume}: no checkpoint that loads{where}; {notes or 'none there'}"
    )


def check_fits(checkpoint: Checkpoint, own: Mapping[str, torch.Tensor], spec: Any) -> None:
    """Refuse a checkpoint of another env or network, before anything is loaded.

    Args:
        checkpoint: The file.
        own: The tensors it should have. The optimizer's may be absent on either side.
        spec: The env's spec as JSON data; obs and action must be the same.

    Raises:
        CheckpointError: Names the first key that differs, expected and found.
    """
    path, saved_spec = checkpoint.path, checkpoint.meta["spec"]
    for key in ("obs", "action"):
        expected = json.loads(json.dumps(spec[key]))
        if saved_spec[key] != expected:
            raise CheckpointError(
                f"{path}: of another environment: {key} is {saved_spec[key]}, here {expected}"
            )
    for name in checkpoint.tensors:
        if name not in own and not name.startswith("optimizer."):
            raise CheckpointError(f"{path}: has {name!r}, which the run's policy.* does not")
    for name, tensor in own.items():
        found = checkpoint.tensors.get(name)
        if name.startswith("optimizer."):
            continue
        if found is None:
            raise CheckpointError(f"{path}: has no tensor {name!r}; policy.* differs from the run")
        if found.shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(found.shape)}, expected {tuple(tensor.shape)}; "
                "set policy.* as in the run it comes from"
            )


def delete_old(directory: Path, config: CheckpointConfig) -> None:
    """Delete what `keep_last` and `keep_every` do not keep."""
    if config.keep_last == 0:
        return
    for path in list_checkpoints(directory)[: -config.keep_last]:
        match = FILE_NAME.fullmatch(path.name)
        assert match
        if config.keep_every is None or int(match[1]) % config.keep_every:
            path.unlink()


def changed_knobs(saved, config):
    return []
