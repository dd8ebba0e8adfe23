"""What a checkpoint's metadata must be, checked whole before anything is taken from it.

Runs wherever a checkpoint is read: in the learner's process and in the commands. A checksum proves
that a file is as it was written, not who wrote it: every value that a run goes on from is checked
for its type and range, and the findings are `ValueError`s of one line.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import shown

SCHEMA_VERSION = 1
MAX_COUNT = 2**63
MAX_RANKS = 2**20


def parse_meta(text: str) -> dict[str, Any]:
    """Read the JSON and its schema number.

    Raises:
        ValueError: Not JSON, not an object, or of another schema.
    """
    try:
        meta = json.loads(text)
    except RecursionError as e:
        raise ValueError("damaged metadata: nested too deeply") from e
    except ValueError as e:
        raise ValueError(f"damaged metadata: {shown(e)}") from e
    schema = meta.get("schema") if isinstance(meta, dict) else None
    if type(schema) is not int or not 1 <= schema < MAX_COUNT:
        raise ValueError(f"damaged metadata: schema is {shown(repr(schema))}")
    if schema > SCHEMA_VERSION:
        raise ValueError(
            f"schema {schema} is newer than this version's {SCHEMA_VERSION}; update isaac_hydra_ext"
        )
    return meta


def check_meta(meta: Mapping[str, Any]) -> None:
    """Check everything that a run goes on from.

    Raises:
        ValueError: Names the key, what it is and what it should be.
    """
    for key, (is_right, expected) in _FIELDS.items():
        value: Any = meta
        for name in key.split("."):
            value = value.get(name, _MISSING) if isinstance(value, Mapping) else _MISSING
        if not is_right(value):
            found = "missing" if value is _MISSING else shown(repr(value))
            raise ValueError(f"damaged metadata: {key} is {found}, expected {expected}")
    try:
        EnvSpec.from_json(meta["spec"])
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise ValueError(f"damaged metadata: spec is not an env's ({shown(e)})") from e
    _check_totals(meta["totals"])
    rollout = meta["config"]["rollout"]
    if "running" in meta["episodes"]:
        ranks = meta.get("ranks", 1)  # runs from before there were any have one
        shape = (ranks * max(1, rollout["num_workers"]), rollout["envs_per_worker"])
        _check_running(meta["episodes"]["running"], shape)


_MISSING = object()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < MAX_COUNT
    return type(value) is float and math.isfinite(value)


def _are_groups(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(group, dict) or name == "resume" for name, group in value.items()
    )


def _are_episodes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and _is_number(pair[0]) and _is_count(pair[1])
        for pair in value
    )


def _are_states(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(s is None or isinstance(s, dict) for s in value)


_Check = tuple[Callable[[Any], bool], str]
_COUNT: _Check = (_is_count, "a count")
_OBJECT: _Check = (lambda value: isinstance(value, dict), "an object")
_FIELDS: dict[str, _Check] = {
    "iteration": _COUNT,
    "env_steps": _COUNT,
    "ranks": (lambda v: v is _MISSING or (_is_count(v) and 0 < v < MAX_RANKS), "a count above 0"),
    "config": (_are_groups, "an object of groups"),
    "config.env": _OBJECT,
    "config.rollout.num_workers": _COUNT,
    "config.rollout.envs_per_worker": (lambda v: _is_count(v) and v > 0, "a count above 0"),
    "config.ppo.lr": (_is_number, "a number"),
    "episodes.finished": (_are_episodes, "pairs of return and length"),
    "episodes.total": _COUNT,
    "env_states": (_are_states, "null or an object for each worker"),
    "totals": _OBJECT,
}


def _check_totals(totals: Mapping[str, Any]) -> None:
    for name, value in totals.items():  # which names there are is `RunTotals`'s to know
        if not (_is_number(value) or value is None):
            raise ValueError(f"damaged metadata: totals.{shown(name)} is {shown(repr(value))}")
    for name in ("iterations", "env_steps", "samples_produced", "samples_consumed"):
        if not _is_count(totals.get(name)):
            raise ValueError(f"damaged metadata: totals.{name} is not a count")


def _check_running(running: Any, shape: tuple[int, int]) -> None:
    checks = {"return": _is_number, "length": _is_count, "partial": lambda v: type(v) is bool}
    for name, is_right in checks.items():
        rows = running.get(name) if isinstance(running, Mapping) else None
        if (
            not isinstance(rows, list)
            or len(rows) != shape[0]
            or not all(isinstance(row, list) and len(row) == shape[1] for row in rows)
            or not all(is_right(value) for row in rows for value in row)
        ):
            raise ValueError(
                f"damaged metadata: episodes.running.{name} is not of {shape[0]} workers with "
                f"{shape[1]} envs"
            )
