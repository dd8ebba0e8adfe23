"""The runs of an output directory, told in a line each: `appo list runs`. Runs in its process.

Reads `summary.json` and `params/agent.yaml` alone, and imports no torch: there may be thousands.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.reports.parts import RUN_TIME, agent_yaml, is_run

NO_SUMMARY = "no summary"  # it has not saved yet, or died before it did
UNREADABLE = "damaged"
NOT_ENDED = "not ended"  # it goes on, or was killed: `written` says which


class RunLine(NamedTuple):
    """What is shown of a run; empty where it is not known.

    Attributes:
        written: When a file of the run's was written last.
        status: Of `summary.json`, or why there is none.
        iterations: Done.
        mean_return: As of `summary.json`.
        task: `env.task` or `env.id`.
        run: Its directory, as short as it can be typed here.
    """

    written: str
    status: str
    iterations: str
    mean_return: str
    task: str
    run: str


def list_runs(root: Path) -> list[RunLine]:
    """Return the runs that lie in, one or two directories below `root`; the newest first.

    Args:
        root: An absolute path.

    Raises:
        ConfigError: There is no such directory.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no such directory; experiment.output_dir is where runs lie")
    found = (p for p in (root, *_below(root)) if is_run(p) and not p.is_symlink())
    return [_line(path) for path in sorted(found, key=_began, reverse=True)]


def _below(root: Path) -> Iterator[Path]:
    for pattern in ("*", "*/*"):
        yield from root.glob(pattern)


def _began(run: Path) -> tuple[str, str]:
    time = RUN_TIME.match(run.name)
    return time[0] if time else "", str(run)


def _line(run: Path) -> RunLine:
    summary, status = _summary(run)
    returned = summary.get("mean_return")
    return RunLine(
        _written(run),
        status,
        str(summary.get("iterations", "")),
        f"{returned:.2f}" if isinstance(returned, int | float) else "",
        _task(run),
        str(run.relative_to(here) if run.is_relative_to(here := Path.cwd()) else run),
    )


def _written(run: Path) -> str:
    """Return when something directly in the run's directory was written: curves are, often."""
    try:
        newest = max(path.stat().st_mtime for path in (run, *run.iterdir()) if path.exists())
    except OSError:  # it is being deleted
        return ""
    return f"{datetime.fromtimestamp(newest):%Y-%m-%d %H:%M}"


def _summary(run: Path) -> tuple[dict[str, Any], str]:
    """Return `summary.json` and the run's status; without one, nothing and the reason."""
    try:
        summary = json.loads((run / "summary.json").read_text())
    except FileNotFoundError:
        return {}, NO_SUMMARY
    except (OSError, ValueError, RecursionError):
        return {}, UNREADABLE
    if not isinstance(summary, dict):
        return {}, UNREADABLE
    status = str(summary.get("status", UNREADABLE))
    return summary, NOT_ENDED if status == "running" else status


def _task(run: Path) -> str:
    try:
        env = agent_yaml(run).get("env")
    except ConfigError:
        return UNREADABLE
    if not isinstance(env, dict):
        return UNREADABLE
    return str(env.get("task") or env.get("id") or env.get("kind") or "")
