"""Finding the checkpoint that Isaac Lab's flags mean. Runs in the learner's process."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from isaac_hydra_ext.checkpoint import list_checkpoints, read_meta
from isaac_hydra_ext.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class Found:
    """A checkpoint file and what its metadata says."""

    path: Path
    iteration: int
    meta: Mapping[str, Any]


def choose_checkpoint(
    root: Path,
    task: str | None,
    experiment: str | None,
    load_run: str | None,
    checkpoint: str | None,
    regex: bool,
) -> Found:
    """Find a checkpoint.

    Args:
        root: `experiment.output_dir`.
        task: Only runs of this task; None: of any.
        experiment: Only runs below this name; None: below any.
        load_run: Regex of the run's directory name, as rsl_rl's.
        checkpoint: A path, `latest` or `best`, or (with `regex`) a regex of the file's name.
        regex: Whether it may be one.

    Returns:
        Of the newest run that matches: the newest checkpoint, or the best.

    Raises:
        CheckpointError: Nothing matches, or a named file does not load.
        ConfigError: A regex that is none, or where none is expected.
    """
    if checkpoint not in (None, "latest", "best"):
        path = Path(str(checkpoint)).expanduser()
        if path.is_file():
            return _found(path)
        if path.is_dir():
            return _newest_of(path, None, best=False)
        if not regex:
            raise ConfigError(
                f"--checkpoint={checkpoint}: no such file or directory; latest and best are names, "
                "a regex needs --resume"
            )
    for flag, pattern in (("--load_run", load_run), ("--checkpoint", checkpoint)):
        try:
            re.compile(pattern or "")
        except re.error as e:
            raise ConfigError(f"{flag}={pattern}: not a regex ({e})") from e
    names = [experiment] if experiment else sorted(p.name for p in root.glob("*"))
    runs = [run for name in names for run in (root / name).glob("*") if run.is_dir()]
    runs = [run for run in runs if re.match(load_run or "", run.name)]
    pattern = None if checkpoint in (None, "latest", "best") else str(checkpoint)
    for run in sorted(runs, key=lambda run: run.name, reverse=True):
        try:
            found = _newest_of(run, pattern, best=checkpoint == "best")
        except CheckpointError:
            continue  # a run that was stopped before its first checkpoint
        if task is None or _same_task(str(found.meta["config"]["env"]["task"]), task):
            return found
    wanted = "".join(
        f", {what} {value}"
        for what, value in (("task", task), ("run", load_run), ("checkpoint", pattern))
        if value
    )
    raise CheckpointError(f"--resume: no checkpoint under {root / (experiment or '*')}{wanted}")


def _newest_of(run: Path, pattern: str | None, best: bool) -> Found:
    # rsl_rl's files end in .pt, and so do the patterns that people know by heart.
    pattern = re.sub(r"\\?\.pt\$?$", "", pattern) if pattern else ""
    files = [p for p in list_checkpoints(run / "checkpoints") if re.match(pattern, p.name)]
    if not files:
        raise CheckpointError(f"{run}: no checkpoint there")
    if not best:
        return _found(files[-1])
    return max(map(_found, files), key=lambda found: (_mean_return(found.meta), found.iteration))


def _found(path: Path) -> Found:
    meta = read_meta(path)
    return Found(path, int(meta["iteration"]), meta)


def _mean_return(meta: Mapping[str, Any]) -> float:
    """Return the mean return of the episodes that had ended last when it was written."""
    finished = meta["episodes"]["finished"]
    return fmean(r for r, _ in finished) if finished else -float("inf")


def _same_task(one: str, other: str) -> bool:
    """Compare ids without their version, which 3.0 dropped."""
    return re.sub(r"-v\d+$", "", one) == re.sub(r"-v\d+$", "", other)
