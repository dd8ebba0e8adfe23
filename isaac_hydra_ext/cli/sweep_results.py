"""What a multirun varies and what came of it: names of its runs, and a table at its end.

Runs in the command's process and in those of joblib's, which share `jobs.jsonl` in Hydra's
directory of the sweep: its first line says what is swept, the others are a job's each.
"""

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from isaac_hydra_ext.system.streams import drop

RECORD, HYDRAS = "jobs.jsonl", "multirun.yaml"
IN_THE_PATH = ("experiment.name", "experiment.run_name", "experiment.output_dir")
MAX_LABEL = 100  # characters of a run's name, which has 200
FROM_SUMMARY = (
    "status", "iterations", "mean_return", "best_return", "mean_episode_length", "fps", "wall_s",
)  # fmt: skip
_records: list[Path] = []  # of the sweep that this process has begun, if it has
_begun = False


class SweepResults(Callback):
    """What Hydra tells before it starts the jobs; named in `conf/train_appo.yaml`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Begin the record."""
        global _begun
        _begun = True
        node = config.hydra
        params = node.sweeper.get("params") or {}
        tokens = [*(f"{key}={value}" for key, value in params.items()), *node.overrides.task]
        parsed = OverridesParser.create().parse_overrides(tokens)
        swept = list(dict.fromkeys(o.key_or_group for o in parsed if o.is_sweep_override()))
        minimize = "minimize" in str(node.sweeper.get("direction", ""))
        record = Path(node.sweep.dir).absolute() / RECORD
        with contextlib.suppress(OSError):  # the launcher makes it too, and will say why it cannot
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"swept": swept, "minimize": minimize}) + "\n")
            _records.append(record)


def has_begun() -> bool:
    """Return whether this process launches the jobs of a sweep, or has."""
    return _begun


def varied(typed: Sequence[str]) -> dict[str, str]:
    """Return what the sweep varies, as this job has it: `ppo.lr` -> `0.001`.

    Args:
        typed: The job's override tokens.
    """
    head, _ = _read(_record_of_job())
    parsed = OverridesParser.create().parse_overrides(list(typed))
    values = {o.key_or_group: str(o.input_line).partition("=")[2] for o in parsed}
    return {key: values[key] for key in head.get("swept", ()) if key in values}


def label(values: Mapping[str, str]) -> str:
    """Return what is varied as a part of a file's name: `ppo.lr=0.001_experiment.seed=2`."""
    parts = [f"{key}={_short(v)}" for key, v in values.items() if key not in IN_THE_PATH]
    return re.sub(r"[^A-Za-z0-9._=+-]", "-", "_".join(parts))[:MAX_LABEL]


def _short(value: str) -> str:
    """Return a value in few characters: numbers of a search have 17 digits."""
    with contextlib.suppress(ValueError):
        return value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", value).strip("-")


def add(number: int, values: Mapping[str, str], status: str, result: Mapping[str, Any]) -> None:
    """Add a job's line.

    Args:
        number: Hydra's, of the job.
        values: From `varied`.
        status: How its process ended, where its summary does not say.
        result: Of the job, as far as it came: run_dir, objective, summary.
    """
    summary = result.get("summary") or {}
    about = {name: summary.get(name) for name in FROM_SUMMARY}
    if about["status"] in (None, "running"):
        about["status"] = status
    line = {"job": number, "varied": values, "run_dir": result.get("run_dir"), **about}
    line["objective"] = result.get("objective")
    record = _record_of_job()
    with contextlib.suppress(OSError):  # a table is no reason to fail
        if record.is_file():
            with record.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _record_of_job() -> Path:
    return Path(HydraConfig.get().sweep.dir).absolute() / RECORD


def _read(record: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the first line and the jobs'; nothing where there is no such file."""
    try:
        head, *jobs = map(json.loads, record.read_text().splitlines())
    except (OSError, ValueError):
        return {}, []
    return head, jobs


@contextlib.contextmanager
def told_at_the_end() -> Iterator[None]:
    """Print the table of the sweep that was started within, however it ends.

    A sweep of which no job came to have a run leaves nothing behind.
    """
    try:
        yield
    finally:
        while _records:
            record = _records.pop()
            head, jobs = _read(record)
            if any(job["run_dir"] for job in jobs):
                try:
                    _print(record, head, jobs)
                except OSError:  # nobody reads any more
                    drop(sys.stdout)
            else:
                _remove(record)


def _remove(record: Path) -> None:
    with contextlib.suppress(OSError):
        record.unlink()
        (record.parent / HYDRAS).unlink(missing_ok=True)
        for directory in list(record.parents)[:3]:  # of the sweep, of all sweeps, of all runs
            directory.rmdir()


def _print(record: Path, head: Mapping[str, Any], jobs: list[dict[str, Any]]) -> None:
    # Here, as Hydra imports this module in every application that composes `train_appo`.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from isaac_hydra_ext.terminal.clock import as_duration
    from isaac_hydra_ext.terminal.console import as_number

    objective = next(job["objective"] for job in jobs if job["run_dir"])
    sign = 1.0 if head["minimize"] else -1.0

    def place(job: dict[str, Any]) -> tuple[float, int]:
        value = job.get(objective) if job["status"] == "completed" else None
        return (inf if value is None else sign * float(value)), job["job"]

    keys = list(dict.fromkeys(key for job in jobs for key in job["varied"]))
    more = [] if objective in ("mean_return", "best_return") else [objective]
    best = "lowest" if head["minimize"] else "highest"
    table = Table(
        box=box.SIMPLE_HEAD, title=f"jobs, {best} {objective} first", title_justify="left"
    )
    for name in ("job", *_shortest(keys), "status"):
        table.add_column(name, overflow="fold")
    for name in (*more, "mean return", "best", "iterations", "time"):
        table.add_column(name.replace("_", " "), justify="right")
    for job in sorted(jobs, key=place):
        table.add_row(
            str(job["job"]),
            *(_short(job["varied"].get(key, "")) for key in keys),
            str(job["status"]),
            *(as_number(job.get(name)) for name in [*more, "mean_return", "best_return"]),
            "" if job["iterations"] is None else str(job["iterations"]),
            "" if job["wall_s"] is None else as_duration(job["wall_s"]),
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    parents = {str(Path(job["run_dir"]).parent) for job in jobs if job["run_dir"]}
    console.print(f"as data: {record}", soft_wrap=True)
    console.print(f"curves: appo plot {' '.join(sorted(parents))}", soft_wrap=True)


def _shortest(keys: Sequence[str]) -> list[str]:
    """Return keys without their groups, where that leaves them apart: `lr` of `ppo.lr`."""
    last = [key.rpartition(".")[2] for key in keys]
    return [n if last.count(n) == 1 else key for key, n in zip(keys, last, strict=True)]
