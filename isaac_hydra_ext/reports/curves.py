"""Learning curves read back from run directories. Runs in `appo plot` and `appo report`.

The parts of a resumed run are one curve. Runs whose configurations differ in nothing but the seed
are one curve with a spread.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from isaac_hydra_ext.config.renamed import with_new_names
from isaac_hydra_ext.config.schema import all_knobs
from isaac_hydra_ext.errors import ConfigError, shown
from isaac_hydra_ext.reports.events import RETURN, Points, read_points
from isaac_hydra_ext.reports.parts import agent_yaml, is_run, parts_of

AXES = {"samples": "env steps", "seconds": "seconds", "iterations": "iterations"}
# In these, runs of one curve may differ.
NOT_COMPARED = (
    "experiment.seed", "experiment.run_name", "experiment.output_dir", "resume", "logging.",
    "checkpoint.",
    "evaluate.",
)  # fmt: skip


@dataclass(frozen=True)
class RunCurve:
    """The points of one training: of a run, and of those that it goes on from.

    Attributes:
        run_dir: Of the run.
        x: Increasing, at least one.
        y: Of the tag, at each x.
        settings: Its configuration, flat: `ppo.lr` -> value.
    """

    run_dir: Path
    x: np.ndarray
    y: np.ndarray
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """Runs that differ in their seed alone.

    Attributes:
        label: What sets them apart from the other curves.
        runs: How many.
        x: Where all of them have points: the overlap.
        mean: Over the runs.
        low: The lowest of them.
        high: The highest of them.
    """

    label: str
    runs: int
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Return the run directories among and directly below `places`, each once.

    Raises:
        ConfigError: A place that is not a run and holds none.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            what = "not a directory" if place.exists() else "no such directory"
            raise ConfigError(f"{shown(place)}: {what} (a RUN is one, or latest, or best)")
        below = [place] if is_run(place) else [p for p in sorted(place.iterdir()) if is_run(p)]
        if not below:
            raise ConfigError(
                f"{shown(place)}: no run: a run directory has checkpoints/ and params/"
            )
        found |= dict.fromkeys(path.absolute() for path in below)
    return list(found)


def read_run(run_dir: Path, tag: str = RETURN, axis: str = "samples") -> RunCurve:
    """Read one tag of a training: of a run's event files, and of those that it goes on from.

    Args:
        run_dir: Of the run, or of the last part of a resumed one.
        tag: As in TensorBoard.
        axis: samples, seconds (since the first point, without the time between two parts) or
            iterations.

    Raises:
        ConfigError: There are no such points; the message names similar tags.
    """
    parts, why = parts_of(run_dir), None
    found: list[tuple[Points, float]] = []  # and the iteration where the next part goes on
    end = inf
    for part in reversed(parts):
        if part.until is not None:
            end = part.until
        try:
            points = read_points(part.run_dir, tag, axis)
        except ConfigError as e:
            why = why or e  # of the last part: that is what the user asked about
            continue
        found.insert(0, (points, end))
        end = points.first - 1
    if not found:
        raise why or ConfigError(f"{run_dir}: no points of {tag}")
    xs, ys, begin = [], [], 0.0
    for points, end in found:
        keep = np.isfinite(points.y) & (points.steps <= end)
        xs.append(points.x[keep] + begin)
        ys.append(points.y[keep])
        if axis == "seconds":
            begin += points.seconds_until(end)
    x, y = np.concatenate(xs), np.concatenate(ys)
    if not len(x):
        raise ConfigError(f"{run_dir}: no finite points of {tag}")
    return RunCurve(run_dir, x, y, _settings(run_dir))


def _settings(run_dir: Path) -> dict[str, Any]:
    """Read the run's configuration, flat."""
    # Knobs that are newer than the run had their default.
    flat = {key: default for key, default, _ in all_knobs() if not isinstance(default, dict)}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, below in value.items():
                walk(below, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = value

    walk(with_new_names(agent_yaml(run_dir)), "")
    return flat


def without_parts(runs: Sequence[Path]) -> list[Path]:
    """Return the runs that no other of them goes on from: a training is one curve."""
    parts = {part.run_dir.absolute() for run in runs for part in parts_of(run)[:-1]}
    return [run for run in runs if run.absolute() not in parts]


def combine(runs: Sequence[RunCurve]) -> list[Curve]:
    """Join runs that differ in their seed alone, in the order of their first run.

    Raises:
        ConfigError: Those of one curve have no x in common.
    """
    groups: dict[str, list[RunCurve]] = {}
    for run in runs:
        compared = {k: v for k, v in run.settings.items() if not k.startswith(NOT_COMPARED)}
        groups.setdefault(json.dumps(compared, sort_keys=True, default=str), []).append(run)
    firsts = [group[0].settings for group in groups.values()]
    keys = dict.fromkeys(k for s in firsts for k in s if not k.startswith(NOT_COMPARED))
    differing = [k for k in keys if len({json.dumps(s.get(k), default=str) for s in firsts}) > 1]
    # An env's recommendations are in the knobs themselves as well.
    told = [k for k in differing if not k.startswith("env.trainer_defaults.")] or differing
    return [_spread(_label(group, told), group) for group in groups.values()]


def _label(group: Sequence[RunCurve], told: Sequence[str]) -> str:
    settings = group[0].settings
    if told == ["experiment.name"] or not told:
        return str(settings.get("experiment.name"))
    names = [k for k in told if k != "experiment.name"]
    parts = [f"{k}={shown(settings.get(k), 30)}" for k in names[:3]]
    return ", ".join(parts) + (f", and {len(names) - 3} more" if len(names) > 3 else "")


def _spread(label: str, runs: Sequence[RunCurve]) -> Curve:
    """Interpolate linearly to all x of all runs within their overlap.

    Raises:
        ConfigError: There is none.
    """
    begin, end = max(r.x[0] for r in runs), min(r.x[-1] for r in runs)
    if begin > end:
        first = max(runs, key=lambda r: r.x[0])
        last = min(runs, key=lambda r: r.x[-1])
        raise ConfigError(
            f"nothing to draw of {label}: {last.run_dir} ends before {first.run_dir} begins; "
            "draw them apart"
        )
    x = np.unique(np.concatenate([r.x for r in runs]))
    x = x[(x >= begin) & (x <= end)]
    y_RX = np.stack([np.interp(x, r.x, r.y) for r in runs])
    return Curve(label, len(runs), x, y_RX.mean(0), y_RX.min(0), y_RX.max(0))
