"""The checkpoint that a command line names: RUN, or `run=` and `checkpoint=`.

Runs in the process of each command that plays or exports one.
"""

import argparse
import glob
import sys
from collections.abc import Sequence
from pathlib import Path

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.find import Found, find_checkpoint, list_runs, newest_run, task_of
from isaac_hydra_ext.config.checks import RESUME_WORDS, as_path
from isaac_hydra_ext.config.schema import ExperimentConfig
from isaac_hydra_ext.errors import (
    CheckpointError,
    ConfigError,
    NoRunOfTaskError,
    did_you_mean,
    shown,
)


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `find` takes: `run` and `settings`."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="a run directory (its newest checkpoint), a checkpoint file, latest (of all runs), "
        "or best (the highest mean return in evaluation, or in training without any, of one task)",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],  # without one, argparse calls it required
        metavar="SETTING",
        help="run=RUN, checkpoint=latest|best|FILE (of that run, or of all); where latest and best "
        "look: experiment.name=NAME (default: every name), experiment.output_dir=DIR "
        "(default: logs/appo)",
    )


def find(
    what: str | None, settings: Sequence[str], command: str = "eval", task: str | None = None
) -> Found:
    """Load what the command line names.

    Args:
        what: A run directory, a checkpoint file, `latest` or `best`; or the first setting.
        settings: `run=...` and `checkpoint=...`, which name it as well, and `experiment.name=...`
            and `experiment.output_dir=...`, where the words look; without a name, at all runs of
            the output directory.
        command: Of `appo`, for messages.
        task: Of the command's env, where it names one: `latest` and `best` are of its runs. If
            there are none, the env is one to play another task's policy in: any task will do.

    Raises:
        ConfigError: Another setting, or nothing is named.
        CheckpointError: As `find_checkpoint`.
    """
    where = {
        "run": "",
        "checkpoint": "",
        "experiment.name": "",
        "experiment.output_dir": ExperimentConfig().output_dir,
    }
    if what is not None and what.partition("=")[0] in where and "=" in what:
        what, settings = None, [what, *settings]
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in where or not value:
            hint = did_you_mean(key, where) or f"; there are {', '.join(where)}"
            raise ConfigError(f"{shown(setting)}: not a setting of appo {command}{hint}")
        where[key] = value
    run, checkpoint = where["run"] if what is None else what, where["checkpoint"]
    if what is not None and where["run"]:
        raise ConfigError(f"run={shown(where['run'])}: {shown(what)} is named already")
    key = f"appo {command} "
    if what is None and not run and not checkpoint:
        raise ConfigError(
            f"appo {command}: name a run directory, a checkpoint file, latest or best"
        )
    root = as_path("experiment.output_dir", where["experiment.output_dir"])
    name = where["experiment.name"]
    runs = as_path("experiment.name", str(root / name)) if name else root
    pattern = "*" if name else "*/*"
    if run and checkpoint:
        return _find_in(_run_directory(run, runs, pattern, key, task), checkpoint, key)
    word, key = (checkpoint, f"{key}checkpoint=") if checkpoint else (run, key)
    try:
        return find_checkpoint(word, runs, key=key, pattern=pattern, task=task)
    except NoRunOfTaskError:
        return find_checkpoint(word, runs, key=key, pattern=pattern)


def _run_directory(run: str, runs: Path, pattern: str, key: str, task: str | None) -> Path:
    """Return the directory that a run's name means, beside `checkpoint=`."""
    if run == "latest":
        found = list_runs(runs, pattern)
        if not found:
            raise CheckpointError(f"{key}{run}: there is no run under {runs}")
        return newest_run(found, task) or found[0]
    path = as_path(key.strip(), run)
    if not path.is_dir():
        raise CheckpointError(f"{key}{shown(run)}: no such run directory")
    return path


def _find_in(run: Path, checkpoint: str, key: str) -> Found:
    """Load `latest`, `best`, or a file of one run."""
    key = f"{key}run={shown(run)} checkpoint="
    if checkpoint in RESUME_WORDS:
        return find_checkpoint(checkpoint, run.parent, key=key, pattern=glob.escape(run.name))
    inside = as_path(key.strip(), str(run / "checkpoints" / checkpoint))
    return find_checkpoint(str(inside) if inside.is_file() else checkpoint, run.parent, key=key)


def say_found(found: Found) -> Checkpoint:
    """Say on stderr what was passed over, and which run it is; returns the checkpoint."""
    for line in (*found.notes, found.why):
        if line:
            print(line, file=sys.stderr)
    return found.checkpoint


def task_asked(overrides: Sequence[str]) -> str | None:
    """Return the task that overrides name, as `task_of` has it; None where they name none."""
    env: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in ("env.task", "env.id"):
            env[key.removeprefix("env.")] = value.strip("'\"")
    return task_of(env) if env else None
