"""Checkpoints: one safetensors file holds all that a run goes on from. No pickle, ever.

Tensors (weights, normalisers, optimizer, learning rate) are safetensors; everything else is JSON
in the file's metadata. Written by the learner; workers read their env's state from it.

A file is written under a temporary name, read back, and renamed; older ones are deleted only then.
Whatever ends the process in between, the older ones are there and the temporary file is told by
its lock, which ends with the process that wrote it.

Random generators have no state to save: every stream is seeded by what it is for.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from isaac_hydra_ext.checkpoints.history import evaluated_returns
from isaac_hydra_ext.checkpoints.meta import (
    SCHEMA_VERSION,
    check_env_states,
    check_meta,
    parse_meta,
)
from isaac_hydra_ext.config.checks import RESUME_WORDS, as_path
from isaac_hydra_ext.config.schema import CheckpointConfig, RunConfig, walk
from isaac_hydra_ext.errors import CheckpointError, shown
from isaac_hydra_ext.run.directory import UNNAMED

METADATA_KEY = "isaac_hydra_ext"
DIGEST_KEY = "sha256"
# What safetensors and torch make of bytes that nobody meant to be a checkpoint.
UNREADABLE = (SafetensorError, OSError, TypeError, ValueError, RuntimeError, AttributeError)
FILE_NAME = re.compile(r"model_(\d{1,18})\.safetensors")
TEMPORARY_NAMES = ".model_*.safetensors.*.tmp"
# <time>, a number where runs began within one second, and the run's name.
RUN_NAME = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:-(\d{1,9}))?(_.*)?")
# May differ between a run and the one that goes on from it without a word.
UNTOLD_KNOBS = ("experiment.run_name", "experiment.output_dir", "experiment.max_iterations")
UNTOLD_GROUPS = ("resume", "logging.", "evaluate.", "env.appo")


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
        CheckpointError: The file cannot be written, or does not read back; earlier ones are
            intact, and no part of it is left.
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
        raise CheckpointError(f"cannot write {path}: {e}; earlier checkpoints are intact") from e
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
    meta = _read_meta(path)
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


def load_env_state(path: Path, worker: int) -> dict[str, Any] | None:
    """Read the env state of one worker; None where the checkpoint holds none.

    Raises:
        CheckpointError: As `read_meta`.
    """
    states = _read_meta(path).get("env_states")
    _checked(path, lambda: check_env_states(states))
    return states[worker] if states and worker < len(states) else None


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as f:
            return _parse(path, f.metadata() or {})
    except UNREADABLE as e:
        raise CheckpointError(f"{path}: not a readable checkpoint ({shown(e)})") from e


def _parse(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not written by isaac_hydra_ext")
    return _checked(path, lambda: parse_meta(metadata[METADATA_KEY]))


def _checked(path: Path, check: Callable[[], Any]) -> Any:
    try:
        return check()
    except ValueError as e:
        raise CheckpointError(f"{path}: {e}") from e


def _iteration(path: Path) -> int:
    name = FILE_NAME.fullmatch(path.name)
    assert name is not None, "list_checkpoints has matched it"
    return int(name[1])


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a `checkpoints/` directory, oldest first."""
    found = [(int(m[1]), p) for p in directory.glob("*") if (m := FILE_NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found)]


def list_runs(root: Path, pattern: str = "*") -> list[Path]:
    """Return the directories that match, the newest run first; what is no run's name comes last.

    A link to a run that had no name when it began is not another run.
    """
    found = (p for p in root.glob(pattern) if p.is_dir() and UNNAMED not in p.parts)
    return sorted(found, key=_run_order, reverse=True)


def _run_order(run: Path) -> tuple[str, int, list[str | int]]:
    """Order runs by when they began; of one second by their number, and -2 before -10."""
    name = RUN_NAME.fullmatch(run.name)
    time, number, rest = name.groups() if name else ("", None, run.name)
    parts = re.split(r"(\d{1,18})", rest or "")
    return time, int(number or 0), [int(p) if i % 2 else p for i, p in enumerate(parts)]


def find_checkpoint(
    resume: str, runs: Path, *, key: str = "resume=", pattern: str = "*"
) -> tuple[Checkpoint, list[str]]:
    """Load what `resume` names.

    Args:
        resume: A checkpoint file; a run directory: its newest checkpoint; `latest`: that of the
            newest run; `best`: the one of the highest mean return, in any run (`best_first`).
        runs: `<experiment.output_dir>/<experiment.name>`.
        key: What the user has set to `resume`, for messages.
        pattern: Of the run directories below `runs`.

    Returns:
        The checkpoint, and a line for each run or file that was passed over for it.

    Raises:
        CheckpointError: Nothing there, or a named file that does not load.
        ConfigError: Not a path.
    """
    asked = f"{key}{shown(resume)}"
    if resume in RESUME_WORDS:
        where, directories = f" under {runs}", list_runs(runs, pattern)
    else:
        path = as_path(key.rstrip("= "), resume)
        if os.path.isfile(path):
            return load_checkpoint(path), []
        if not os.path.isdir(path):
            raise CheckpointError(f"{asked}: no such file or directory")
        where, directories = "", [path.parent if path.name == "checkpoints" else path]
    notes: list[str] = []
    order = best_first if resume == "best" else newest_first
    for checkpoint in order(directories, notes):
        try:
            return load_checkpoint(checkpoint), notes
        except CheckpointError as e:
            notes.append(f"DAMAGED checkpoint passed over: {e}")
    empty = "none there (a run has them in checkpoints/)"
    if not where and any(directories[0].glob("*/checkpoints")):
        empty = "it is a directory of runs: name one of them"
    why = "; ".join(notes) or empty
    raise CheckpointError(f"{asked}: no checkpoint that loads{where}; {why}")


def newest_first(runs: Iterable[Path], notes: list[str]) -> Iterator[Path]:
    """Yield the runs' checkpoints; note the runs that have none."""
    for run in runs:
        remove_leftovers(run / "checkpoints")
        found = list_checkpoints(run / "checkpoints")
        if not found and RUN_NAME.fullmatch(run.name):
            notes.append(f"{run} holds no checkpoint: passed over")
        yield from reversed(found)


def best_first(runs: Iterable[Path], notes: list[str]) -> Iterator[Path]:
    """Yield the runs' checkpoints that know a mean return, newer before older equals.

    It is that of their evaluation in runs that have any, else that of the training. What an
    evaluated run has saved besides comes last.
    """
    ranked: list[tuple[bool, float, Path]] = []
    for run in runs:
        evaluated = evaluated_returns(run)
        for path in newest_first([run], []):
            try:
                seen = path.stat()
                trained = _training_return(path, seen.st_mtime_ns, seen.st_size)
                value = evaluated.get(_iteration(path), trained)
            except (CheckpointError, OSError) as e:
                notes.append(f"DAMAGED checkpoint passed over: {e}")
                continue
            besides = bool(evaluated) and _iteration(path) not in evaluated
            ranked += [] if value is None else [(besides, -value, path)]
    yield from (path for _, _, path in sorted(ranked, key=lambda entry: entry[:2]))


@lru_cache(maxsize=100_000)
def _training_return(path: Path, mtime_ns: int, nbytes: int) -> float | None:
    """Read `mean_return` of a file as it was then: every save asks it of all that are kept."""
    return mean_return(read_meta(path))


def mean_return(meta: Mapping[str, Any]) -> float | None:
    """Return the mean over a checkpoint's last finished training episodes; None without any."""
    finished = meta["episodes"]["finished"]
    return sum(r for r, _ in finished) / len(finished) if finished else None


def delete_old(directory: Path, config: CheckpointConfig, keep: int | None = None) -> None:
    """Delete what `keep_last`, `keep_every` and `keep_best` do not keep.

    To be called after `save_checkpoint`, which has read its file back: a sound one then remains.

    Args:
        directory: `checkpoints/` of the run.
        config: What to keep.
        keep: An iteration to keep as well: it may yet turn out to be the best.

    Raises:
        CheckpointError: A file cannot be deleted.
    """
    paths = list_checkpoints(directory)
    old = paths[: -config.keep_last] if config.keep_last else []
    old = [path for path in old if _iteration(path) != keep]
    if config.keep_every is not None:
        old = [path for path in old if _iteration(path) % config.keep_every]
    if old and config.keep_best:
        best = next(best_first([directory.parent], []), None)
        old = [path for path in old if path != best]
    for path in old:
        try:
            path.unlink(missing_ok=True)
        except OSError as e:
            raise CheckpointError(f"cannot delete the old checkpoint {path}: {e}") from e


def changed_knobs(saved: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Say what a run does otherwise than the one it goes on from.

    Args:
        saved: The checkpoint's `meta["config"]`.
        config: After `complete`.

    Returns:
        A line for each knob that differs: `ppo.lr: 0.001 -> 0.0005`.
    """
    lines = []
    for key, value, _ in walk(config):
        if key in UNTOLD_KNOBS or key.startswith(UNTOLD_GROUPS):
            continue
        before = _saved_value(saved, key, value)  # knobs that are new since then: as now
        if before != value:
            lines.append(f"{key}: {_as_typed(before)} -> {_as_typed(value)}")
    return lines


def _saved_value(saved: Any, key: str, default: Any) -> Any:
    """Return what a nested mapping holds at a dotted key, however deep."""
    for part in key.split("."):
        if not isinstance(saved, Mapping) or part not in saved:
            return default
        saved = saved[part]
    return saved


def _as_typed(value: Any) -> str:
    return shown(value if isinstance(value, str) else json.dumps(value))
