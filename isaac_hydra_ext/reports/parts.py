"""Which run a resumed run goes on from: the parts of one training lie in a directory each.

Runs in `appo plot` and `appo report`, and in the learner's process at the end of a run.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from isaac_hydra_ext.errors import ConfigError, shown

RUN_TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
CHECKPOINT = re.compile(r"model_(\d{1,18})\.safetensors")


class Part(NamedTuple):
    """A run's directory as part of a training.

    Attributes:
        run_dir: Of the run.
        until: The iteration that the next part goes on from: later ones are no part of it. None
            where that is not known, and for the last part.
    """

    run_dir: Path
    until: int | None


def parts_of(run_dir: Path) -> list[Part]:
    """Return the parts of the training that a run is the end of, the first one first.

    A part whose directory is gone ends the list there.
    """
    parts, seen = [Part(run_dir, None)], {run_dir.absolute()}
    while (before := _before(parts[0].run_dir)) and before.run_dir.absolute() not in seen:
        seen.add(before.run_dir.absolute())
        parts.insert(0, before)
    return parts


def _before(run_dir: Path) -> Part | None:
    """Return the part that a run goes on from, if it was resumed and that one is still there."""
    try:
        resume = agent_yaml(run_dir).get("resume")
    except ConfigError:  # told where the run itself is read
        return None
    if not isinstance(resume, str):
        return None
    path = Path(resume)
    if name := CHECKPOINT.fullmatch(path.name):
        for place in (path.parent.parent, run_dir.parent / path.parent.parent.name):
            if is_run(place):  # as it was, or moved together with this one
                return Part(place, int(name[1]))
        return None
    # Runs of 0.1 wrote the word, not what it meant.
    if resume == "latest" and (older := next(_older(run_dir), None)):
        return Part(older, None)
    return Part(path, None) if is_run(path) else None


def _older(run_dir: Path) -> Iterator[Path]:
    """Yield the runs beside this one that began before it and have saved, the newest first."""
    if not RUN_TIME.match(run_dir.name):
        return
    beside = sorted(p for p in run_dir.parent.iterdir() if RUN_TIME.match(p.name) and is_run(p))
    for path in reversed(beside[: beside.index(run_dir)] if run_dir in beside else []):
        if any(CHECKPOINT.fullmatch(p.name) for p in (path / "checkpoints").iterdir()):
            yield path


def is_run(path: Path) -> bool:
    """Return whether a directory is a run's."""
    return (path / "params").is_dir() and (path / "checkpoints").is_dir()


def agent_yaml(run_dir: Path) -> dict[Any, Any]:
    """Read a run's whole configuration.

    Raises:
        ConfigError: It cannot be read.
    """
    path = run_dir / "params" / "agent.yaml"
    try:
        node = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, OmegaConfBaseException, YAMLError) as e:
        raise ConfigError(f"{path}: cannot be read ({shown(e)})") from e
    return node if isinstance(node, dict) else {}
