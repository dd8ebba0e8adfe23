"""Learning curves read back from run directories. Runs in `appo plot` and `appo report`.

Runs whose configurations differ in nothing but the seed are one curve with a spread.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from isaac_hydra_ext.config.schema import all_knobs
from isaac_hydra_ext.errors import ConfigError, did_you_mean, shown

RETURN = "Train/mean_reward"
SAMPLES = "Async/samples_consumed"
AXES = {"samples": "env steps", "seconds": "seconds", "iterations": "iterations"}
EVENTS = "events.out.tfevents.*"
# In these, runs of one curve may differ.
NOT_COMPARED = (
    "experiment.seed", "experiment.run_name", "experiment.output_dir", "resume", "logging.",
    "checkpoint.",
    "evaluate.",
)  # fmt: skip


@dataclass(frozen=True)
class RunCurve:
    """One run's points.

    Attributes:
        run_dir: Of the run.
        x: Increasing.
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
        ConfigError: A place that is none and has none.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            what = "not a directory" if place.exists() else "no such directory"
            raise ConfigError(f"{shown(place)}: {what} (a RUN is one, or latest, or best)")
        below = [place] if _is_run(place) else [p for p in sorted(place.iterdir()) if _is_run(p)]
        if not below:
            raise ConfigError(
                f"{shown(place)}: no run: a run directory has checkpoints/ and params/"
            )
        found |= dict.fromkeys(path.absolute() for path in below)
    return list(found)


def _is_run(path: Path) -> bool:
    return (path / "params").is_dir() and (path / "checkpoints").is_dir()


def read_run(run_dir: Path, tag: str = RETURN, axis: str = "samples") -> RunCurve:
    """Read one tag of a run's event files.

    Args:
        run_dir: Of the run.
        tag: As in TensorBoard.
        axis: samples, seconds (since the run's first point) or iterations.

    Raises:
        ConfigError: The run has no such points; names near tags.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not list(run_dir.glob(EVENTS)):
        raise ConfigError(
            f"{run_dir}: has no TensorBoard events; was tensorboard among logging.backends?"
        )
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    tags = events.Tags()["scalars"]
    if tag not in tags:
        why = did_you_mean(tag, tags) or f"; there are {', '.join(sorted(tags)) or 'none'}"
        if tag == RETURN and tags:
            why = ": no episode has ended that counts"
        raise ConfigError(f"{run_dir}: no points of {tag}{why}")
    points = events.Scalars(tag)
    y = np.array([p.value for p in points])
    if axis == "iterations":
        x = np.array([float(p.step) for p in points])
    elif axis == "seconds":
        begin = min(events.Scalars(t)[0].wall_time for t in tags)
        x = np.array([p.wall_time - begin for p in points])
    else:
        samples = events.Scalars(SAMPLES)
        x = np.interp(
            [p.step for p in points], [p.step for p in samples], [p.value for p in samples]
        )
    keep = np.isfinite(y)
    return RunCurve(run_dir, x[keep], y[keep], _settings(run_dir))


def _settings(run_dir: Path) -> dict[str, Any]:
    """Read the run's configuration, flat."""
    path = run_dir / "params" / "agent.yaml"
    try:
        node = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, OmegaConfBaseException, YAMLError) as e:
        raise ConfigError(f"{path}: cannot be read ({shown(e)})") from e
    # Knobs that are newer than the run had their default.
    flat = {key: default for key, default, _ in all_knobs() if not isinstance(default, dict)}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, below in value.items():
                walk(below, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = value

    walk(node, "")
    return flat


def combine(runs: Sequence[RunCurve]) -> list[Curve]:
    """Join runs that differ in their seed alone, in the order of their first run."""
    groups: dict[str, list[RunCurve]] = {}
    for run in runs:
        compared = {k: v for k, v in run.settings.items() if not k.startswith(NOT_COMPARED)}
        groups.setdefault(json.dumps(compared, sort_keys=True, default=str), []).append(run)
    firsts = [group[0].settings for group in groups.values()]
    keys = dict.fromkeys(k for s in firsts for k in s if not k.startswith(NOT_COMPARED))
    differing = [k for k in keys if len({json.dumps(s.get(k), default=str) for s in firsts}) > 1]
    # An env's recommendations are in the knobs themselves as well.
    told = [k for k in differing if not k.startswith("env.appo.")] or differing
    return [_spread(_label(group, told), group) for group in groups.values()]


def _label(group: Sequence[RunCurve], told: Sequence[str]) -> str:
    settings = group[0].settings
    if told == ["experiment.name"] or not told:
        return str(settings.get("experiment.name"))
    names = [k for k in told if k != "experiment.name"]
    parts = [f"{k}={shown(settings.get(k), 30)}" for k in names[:3]]
    return ", ".join(parts) + (f", and {len(names) - 3} more" if len(names) > 3 else "")


def _spread(label: str, runs: Sequence[RunCurve]) -> Curve:
    """Interpolate linearly to all x of all runs within their overlap."""
    begin, end = max(r.x[0] for r in runs), min(r.x[-1] for r in runs)
    x = np.unique(np.concatenate([r.x for r in runs]))
    x = x[(x >= begin) & (x <= end)]
    y_RX = np.stack([np.interp(x, r.x, r.y) for r in runs])
    return Curve(label, len(runs), x, y_RX.mean(0), y_RX.min(0), y_RX.max(0))
