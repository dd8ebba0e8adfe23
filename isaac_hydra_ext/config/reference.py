"""Every knob as text: what `appo train --help` prints, and the tables of docs/configuration.md.

Runs in the process that asks. Both are made of the same dataclasses of `config/schema.py`.
"""

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from isaac_hydra_ext.config.schema import MAX_INT, RunConfig

KEY_WIDTH = 38  # of `key=default` in the help
MAX_WIDTH = 120


@dataclass(frozen=True)
class Knob:
    """One setting, in words.

    Attributes:
        key: As it is typed: `ppo.lr`.
        default: As it is typed.
        type: As Python writes it: `int | None`.
        unit: Without its brackets; empty for what is no number.
        meaning: The field's docstring.
        limits: What a value may be: `> 0`, `adaptive | fixed`; empty where anything goes.
    """

    key: str
    default: str
    type: str
    unit: str
    meaning: str
    limits: str


def sections() -> Iterator[tuple[str, str, list[Knob]]]:
    """Yield (group, what it is about, its knobs); the group of what is in none is empty."""
    alone = []
    types = get_type_hints(RunConfig)
    for f in fields(RunConfig):
        kind = types[f.name]
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield f.name, (kind.__doc__ or "").splitlines()[0], list(_knobs(kind, f"{f.name}."))
        else:
            alone.append(_knob(f.name, f, kind))
    yield "", "What a run goes on from.", alone


def _knobs(kind: type, path: str) -> Iterator[Knob]:
    """Yield the knobs of a dataclass, and of those in it."""
    types = get_type_hints(kind)
    for f in fields(kind):  # type: ignore[arg-type]
        below = types[f.name]
        if is_dataclass(below):
            assert isinstance(below, type)
            yield from _knobs(below, f"{path}{f.name}.")
        else:
            yield _knob(f"{path}{f.name}", f, below)


def _knob(key: str, f: Any, kind: Any) -> Knob:
    default = f.default_factory() if callable(f.default_factory) else f.default
    unit, meaning = _split_unit(f.metadata["doc"])
    name = kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")
    return Knob(key, _as_typed(default), name, unit, meaning, _limits(f.metadata))


def _split_unit(doc: str) -> tuple[str, str]:
    """Return the unit that a number's text begins with, `[s] ...`, and the rest."""
    found = re.match(r"\[([^\]]+)\] (.*)", doc, re.S)
    return (found[1], found[2]) if found else ("", doc)


def _as_typed(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(map(_as_typed, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _limits(metadata: Mapping[str, Any]) -> str:
    if metadata["choices"]:
        return " | ".join(metadata["choices"])
    signs = (("gt", ">"), ("ge", ">="), ("le", "<="))
    return ", ".join(
        f"{sign} {metadata[key]:,.12g}"
        for key, sign in signs
        if metadata[key] is not None and metadata[key] < MAX_INT  # that much is no limit
    )


def as_help() -> str:
    """Return every knob by group for a terminal, as wide as that is."""
    width = min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns)
    lines = []
    for group, about, knobs in sections():
        lines += ["", f"{group}: {about}" if group else about]
        for knob in knobs:
            unit = f"[{knob.unit}] " if knob.unit else ""
            limits = f" ({knob.limits})" if knob.limits else ""
            left = f"  {f'{knob.key}={knob.default}':<{KEY_WIDTH}} "
            lines += textwrap.wrap(
                unit + knob.meaning + limits, max(width, KEY_WIDTH + 30), initial_indent=left,
                subsequent_indent=" " * (KEY_WIDTH + 3), break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
    return "\n".join(lines)


def as_markdown() -> str:
    """Return the same as tables, one a group."""
    lines = []
    for group, about, knobs in sections():
        lines += [f"## {group or 'resume'}", "", about, ""]
        lines += ["| key | default | type | unit | bounds | meaning |", "|---|---|---|---|---|---|"]
        for knob in knobs:
            code = [knob.key, knob.default or '""', knob.type]
            cells = [*map(_as_code, code), *map(_escaped, (knob.unit, knob.limits, knob.meaning))]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _as_code(text: str) -> str:
    # Between backticks a bar ends the cell, however it is escaped.
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _escaped(text: str) -> str:
    """Escape what would end a table's cell, or be markup."""
    return re.sub(r"([|*_])", r"\\\1", text)
