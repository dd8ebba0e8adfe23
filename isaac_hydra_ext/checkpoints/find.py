"""Finding checkpoints: in a run's directory, the newest, the best, or the one that `resume` names.

Runs wherever a checkpoint is looked for: in the learner's process, and in the commands. `latest`
and `best` are of one task: another task's policy is of no use, and its returns say nothing.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from isaac_hydra_ext.checkpoints.file import (
    Checkpoint,
    load_checkpoint,
    read_meta,
    remove_leftovers,
)
from isaac_hydra_ext.checkpoints.history import evaluated_returns
from isaac_hydra_ext.config.checks import RESUME_WORDS, as_path
from isaac_hydra_ext.envs.isaac.ids import trained_task
from isaac_hydra_ext.errors import CheckpointError, NoRunOfTaskError, shown

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
    """Return the directories that match, the newest run first, names that are not a run's last.

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


class Found(NamedTuple):
    """What `find_checkpoint` has found.

    Attributes:
        checkpoint: Loaded.
        notes: A line for each run or file that was passed over for it.
        why: Of `latest` and `best`: which run it is of, and why of that one. Else empty.
    """

    checkpoint: Checkpoint
    notes: list[str]
    why: str


class Ranked(NamedTuple):
    """A checkpoint that knows a mean return.

    Attributes:
        path: Of the file.
        value: The mean return.
        evaluated: Whether it is of an evaluation, not of training episodes.
        task: That it was trained in.
    """

    path: Path
    value: float
    evaluated: bool
    task: str


def task_of(env: Mapping[str, Any]) -> str:
    """Return the task that an env's configuration names, in the form that all of its ids share."""
    return trained_task(str(env["task"])) if env.get("task") else str(env.get("id"))


def find_checkpoint(
    resume: str, runs: Path, *, key: str = "resume=", pattern: str = "*", task: str | None = None
) -> Found:
    """Load what `resume` names.

    Args:
        resume: A checkpoint file; a run directory: its newest checkpoint; `latest`: that of the
            newest run; `best`: the one of the highest mean return, in any run (`best_first`).
        runs: `<experiment.output_dir>/<experiment.name>`.
        key: What the user has set to `resume`, for messages.
        pattern: Of the run directories below `runs`.
        task: What `task_of` says of the command's env: `latest` and `best` look at its runs alone.
            None: `latest` is of any task, and `best` of the only one there is.

    Raises:
        CheckpointError: Nothing there, or a named file that does not load; `best` of several tasks.
        NoRunOfTaskError: There are runs, all of other tasks.
        ConfigError: Not a path.
    """
    asked = f"{key}{shown(resume)}"
    if resume in RESUME_WORDS:
        find = _best if resume == "best" else _latest
        return find(list_runs(runs, pattern), f"under {runs}", asked, task)
    path = as_path(key.rstrip("= "), resume)
    if os.path.isfile(path):
        return Found(load_checkpoint(path), [], "")
    if not os.path.isdir(path):
        raise CheckpointError(f"{asked}: no such file or directory")
    run, notes = path.parent if path.name == "checkpoints" else path, list[str]()
    for checkpoint in _loaded(newest_first([run], notes), notes):
        return Found(checkpoint, notes, "")
    empty = "none there (a run has them in checkpoints/)"
    if any(run.glob("*/checkpoints")):
        empty = "it is a directory of runs: name one of them"
    raise CheckpointError(f"{asked}: no checkpoint that loads; {'; '.join(notes) or empty}")


def _latest(runs: Iterable[Path], where: str, asked: str, task: str | None) -> Found:
    notes: list[str] = []
    others: set[str] = set()
    for run in runs:
        for checkpoint in _loaded(newest_first([run], notes), notes):
            trained = task_of(checkpoint.meta["config"]["env"])
            if task is None or trained == task:
                why = f"latest: {run}, the newest run of {trained} {where}"
                return Found(checkpoint, notes, why)
            others.add(trained)
            break
    raise _nothing(asked, where, notes, others, task)


def _best(runs: Iterable[Path], where: str, asked: str, task: str | None) -> Found:
    notes: list[str] = []
    every = rank(runs, notes)
    ranked = {r.path: r for r in of_one_task(every, where, asked, task)}
    for checkpoint in _loaded(ranked, notes):
        best = ranked[checkpoint.path]
        how = "evaluation" if best.evaluated else "training"
        why = (
            f"best: {best.path}, mean return {best.value:.2f} in {how}, the highest of "
            f"{len({path.parent for path in ranked})} run(s) of {best.task} {where}"
        )
        return Found(checkpoint, notes, why)
    raise _nothing(asked, where, notes, {r.task for r in every} - {task}, task)


def _nothing(
    asked: str, where: str, notes: Sequence[str], others: Iterable[str], task: str | None
) -> CheckpointError:
    """Return the error that says why there is no checkpoint; some runs are of `others`' tasks."""
    if task is not None and (there := sorted({*others} - {task})):
        return NoRunOfTaskError(
            f"{asked}: no run of {task} {where}; there are runs of {', '.join(there)}"
        )
    why = "; ".join(notes) or "none there (a run has them in checkpoints/)"
    return CheckpointError(f"{asked}: no checkpoint that loads {where}; {why}")


def _loaded(paths: Iterable[Path], notes: list[str]) -> Iterator[Checkpoint]:
    """Load the files that are not damaged, and note the others."""
    for path in paths:
        try:
            yield load_checkpoint(path)
        except CheckpointError as e:
            notes.append(_passed_over(path, e))


def _passed_over(path: Path, error: Exception) -> str:
    """Return the note of a file that does not load: a run that trains deletes its old ones."""
    if not path.exists():
        return f"{path} was deleted meanwhile: passed over"
    return f"DAMAGED checkpoint passed over: {error}"


def newest_first(runs: Iterable[Path], notes: list[str]) -> Iterator[Path]:
    """Yield the runs' checkpoints; note the runs that have none."""
    for run in runs:
        remove_leftovers(run / "checkpoints")
        found = list_checkpoints(run / "checkpoints")
        if not found and RUN_NAME.fullmatch(run.name):
            notes.append(f"{run} holds no checkpoint: passed over")
        yield from reversed(found)


def best_first(runs: Iterable[Path], notes: list[str]) -> Iterator[Path]:
    """Yield the runs' checkpoints that know a mean return, as `rank` orders them."""
    yield from (ranked.path for ranked in rank(runs, notes))


def of_one_task(
    ranked: Sequence[Ranked], where: str, asked: str, task: str | None = None
) -> list[Ranked]:
    """Return the checkpoints of one task, in their order.

    Args:
        ranked: From `rank`.
        where: Of the runs, for messages.
        asked: What the user typed, for messages.
        task: From `task_of`; None: the only one there is.

    Raises:
        CheckpointError: There are several, and nobody says which.
    """
    tasks = {r.task for r in ranked}
    if task is None and len(tasks) > 1:
        raise CheckpointError(
            f"{asked}: the runs {where} are of several tasks, whose returns cannot be compared "
            f"({', '.join(sorted(tasks))}); say experiment.name=NAME, or name a run"
        )
    return [r for r in ranked if task in (None, r.task)]


def rank(runs: Iterable[Path], notes: list[str]) -> list[Ranked]:
    """Return the runs' checkpoints that know a mean return, the best first, newer before older.

    What was evaluated comes before what was not: a mean return in training is of another policy,
    which explores. What an evaluated run saved without evaluating it comes last.
    """
    ranked: list[tuple[int, Ranked]] = []
    for run in runs:
        evaluated = evaluated_returns(run)
        for path in newest_first([run], []):
            try:
                seen = path.stat()
                trained, task = _return_and_task(path, seen.st_mtime_ns, seen.st_size)
            except (CheckpointError, OSError) as e:
                notes.append(_passed_over(path, e))
                continue
            is_evaluated = iteration_of(path) in evaluated
            value = evaluated.get(iteration_of(path), trained)
            if value is not None:
                tier = 0 if is_evaluated else 2 if evaluated else 1
                ranked.append((tier, Ranked(path, value, is_evaluated, task)))
    ranked.sort(key=lambda entry: (entry[0], -entry[1].value))
    return [entry for _, entry in ranked]


@lru_cache(maxsize=100_000)
def _return_and_task(path: Path, mtime_ns: int, nbytes: int) -> tuple[float | None, str]:
    """Read a file as it was then: every save asks it of all that are kept."""
    meta = read_meta(path)
    return mean_return(meta), task_of(meta["config"]["env"])


def newest_run(runs: Sequence[Path], task: str | None) -> Path | None:
    """Return the newest run, of a task if one is given; of several, without reading their weights.

    Args:
        runs: From `list_runs`.
        task: From `task_of`.
    """
    for run in runs:
        if task is None:
            return run
        for path in newest_first([run], []):
            with contextlib.suppress(CheckpointError):
                if task_of(read_meta(path)["config"]["env"]) == task:
                    return run
                break
    return None


def mean_return(meta: Mapping[str, Any]) -> float | None:
    """Return the mean over a checkpoint's last finished training episodes; None without any."""
    finished = meta["episodes"]["finished"]
    return sum(r for r, _ in finished) / len(finished) if finished else None
