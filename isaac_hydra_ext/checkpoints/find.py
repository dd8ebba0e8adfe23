"""Finding checkpoints: in a run's directory, the newest, the best, or the one that `resume` names.

Runs wherever a checkpoint is looked for: in the learner's process, and in the commands.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from isaac_hydra_ext.checkpoints.file import (
    Checkpoint,
    load_checkpoint,
    read_meta,
    remove_leftovers,
)
from isaac_hydra_ext.checkpoints.history import evaluated_returns
from isaac_hydra_ext.config.checks import RESUME_WORDS, as_path
from isaac_hydra_ext.errors import CheckpointError, shown

FILE_NAME = re.compile(r"model_(\d{1,18})\.safetensors")
# <time>, a number where runs began within one second, and the run's name.
RUN_NAME = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:-(\d{1,9}))?(_.*)?")
UNNAMED = ".unnamed"  # in experiment.output_dir: runs that only their task will name


def iteration_of(path: Path) -> int:
    """Return the iteration in the name of a file that `list_checkpoints` has found."""
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
                value = evaluated.get(iteration_of(path), trained)
            except (CheckpointError, OSError) as e:
                notes.append(f"DAMAGED checkpoint passed over: {e}")
                continue
            besides = bool(evaluated) and iteration_of(path) not in evaluated
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
