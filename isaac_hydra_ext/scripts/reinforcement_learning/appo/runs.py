"""Finding the checkpoint that Isaac Lab's flags mean. Runs in the learner's process."""

import re
from collections.abc import Iterator
from pathlib import Path

from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint
from isaac_hydra_ext.checkpoints.find import best_first, find_checkpoint, list_runs, newest_first
from isaac_hydra_ext.envs.isaac.ids import trained_task
from isaac_hydra_ext.errors import CheckpointError, ConfigError

WORDS = (None, "latest", "best")


def choose_checkpoint(
    root: Path,
    task: str | None,
    experiment: str | None,
    load_run: str | None,
    checkpoint: str | None,
    regex: bool,
) -> tuple[Checkpoint, list[str]]:
    """Load the checkpoint that the flags mean.

    Args:
        root: `experiment.output_dir`.
        task: Only runs of this task, in any form of its id; None: of any.
        experiment: Only runs below this name; None: below any.
        load_run: Regex of the run's directory name, as rsl_rl's.
        checkpoint: A path, `latest` or `best`, or (with `regex`) a regex of the file's name.
        regex: Whether it may be one.

    Returns:
        Of the newest run that matches: the newest checkpoint, or the best. And a line for each run
        or file that was passed over for it.

    Raises:
        CheckpointError: Nothing matches, or a named file does not load.
        ConfigError: A regex that is none, or where none is expected.
    """
    if checkpoint not in WORDS:
        if Path(str(checkpoint)).expanduser().exists():
            found = find_checkpoint(str(checkpoint), root, key="--checkpoint=")
            return found.checkpoint, found.notes
        if not regex:
            raise ConfigError(
                f"--checkpoint={checkpoint}: no such file or directory; latest and best are names, "
                "a regex needs --resume"
            )
    _check_regex("--load_run", load_run)
    _check_regex("--checkpoint", checkpoint)
    runs = list_runs(root / experiment) if experiment else list_runs(root, "*/*")
    pattern, notes = "" if checkpoint in WORDS else str(checkpoint), list[str]()
    others: set[str] = set()
    for run in runs:
        if not re.match(load_run or "", run.name):
            continue
        found = _first_whole(_matching(run, pattern, checkpoint == "best", notes), notes)
        if found is None:
            continue
        env = found.meta["config"]["env"]
        trained = str(env["task"] or env["id"])
        if task is None or trained_task(trained) == trained_task(task):
            return found, notes
        others.add(trained)
    wanted = "".join(
        f", {what} {value}"
        for what, value in (("task", task), ("run", load_run), ("checkpoint", pattern))
        if value
    )
    if others:
        notes.append(f"there are runs of {', '.join(sorted(others))}")
    why = f"; {'; '.join(notes)}" if notes else ""
    flag = "--resume" if regex else "--checkpoint"
    raise CheckpointError(f"{flag}: no checkpoint under {root / (experiment or '*')}{wanted}{why}")


def _check_regex(flag: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as e:
        raise ConfigError(f"{flag}={pattern}: not a regex ({e})") from e


def _first_whole(paths: Iterator[Path], notes: list[str]) -> Checkpoint | None:
    """Load the first file that is not damaged, and note those before it."""
    for path in paths:
        try:
            return load_checkpoint(path)
        except CheckpointError as e:
            notes.append(f"DAMAGED checkpoint passed over: {e}")
    return None


def _matching(run: Path, pattern: str, best: bool, notes: list[str]) -> Iterator[Path]:
    # rsl_rl's files end in .pt, and so do the patterns that people know by heart.
    pattern = re.sub(r"\\?\.pt\$?$", "", pattern)
    order = best_first if best else newest_first
    return (path for path in order([run], notes) if re.match(pattern, path.name))
