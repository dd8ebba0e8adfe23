"""What can be trained and chosen, and what has been: `appo list`.

    appo list [envs|tasks|configs] [--keyword WORD]
    appo list runs [DIR] [--keyword WORD]

Each line is what to type after `appo train`; of runs, it ends with what to type after `appo eval`.
Runs in one process; simulators in one beside it.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.config.checks import as_path
from isaac_hydra_ext.config.schema import ExperimentConfig
from isaac_hydra_ext.envs.facts import EnvFacts
from isaac_hydra_ext.envs.gym_ids import what_it_needs
from isaac_hydra_ext.envs.registry import FACTS
from isaac_hydra_ext.reports.runs import RunLine, list_runs
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.probing import ProbeError, probe
from isaac_hydra_ext.system.streams import say_error

SIMULATOR_TIMEOUT_S = 300.0  # Isaac Lab 2.x starts Kit to fill its registry
LIST_TASKS = """
import json, os
from isaac_hydra_ext.envs.registry import load_adapter
print("\\n" + json.dumps(load_adapter({kind!r}).list_tasks()), flush=True)
os._exit(0)  # Kit may not let go
"""
MAX_WIDTH = 60  # of a column
Line = tuple[str, str]  # what to type, what it is
Row = TypeVar("Row", bound=Sequence[str])


def configs() -> Iterator[Line]:
    """Yield every choice of every config group, those of other packages included."""
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for group in loader.list_groups(""):
            if group == "hydra":
                continue
            for choice in loader.get_group_options(group):
                found = loader.repository.load_config(f"{group}/{choice}")  # type: ignore[attr-defined]
                about = _first_sentence(found.path, f"{group}/{choice}.yaml") if found else ""
                needs = _needs(found.config) if found and group == "env" else ""
                yield f"{group}={choice}", about + needs


def _needs(config: Any) -> str:
    """Return what must be installed for a choice of `env=`; empty where it is."""
    node = OmegaConf.to_container(config)
    facts = FACTS.get(str(node.get("kind"))) if isinstance(node, dict) else None
    return f"; needs: {facts.install}" if facts and not _is_here(facts) else ""


def _is_here(facts: EnvFacts) -> bool:
    return not facts.package or importlib.util.find_spec(facts.package) is not None


def envs() -> Iterator[Line]:
    """Yield the choices of the group `env`, and the simulators that packages register."""
    yield from (line for line in configs() if line[0].startswith("env="))
    for kind in entry_points.registered(entry_points.ENVS):
        yield f"env.kind={kind}", "registered by an installed package"


def tasks() -> Iterator[Line]:
    """Yield every id and task that a registry here holds; says on stderr what cannot be asked."""
    import gymnasium

    for name, spec in sorted(gymnasium.registry.items()):
        needs = what_it_needs(spec)
        yield f"env=gym_any env.id={name}", needs and f"needs: {needs}"
    for kind, facts in FACTS.items():
        package = facts.package
        if not package:
            continue
        if not _is_here(facts):
            print(f"{package}: not installed; needs: {facts.install}", file=sys.stderr)
            continue
        try:
            names = probe(LIST_TASKS.format(kind=kind), SIMULATOR_TIMEOUT_S)
        except ProbeError as e:
            print(f"{package}: its tasks cannot be listed: {e}", file=sys.stderr)
            continue
        yield from ((f"env={facts.choice} env.task={name}", "") for name in names)


KINDS: dict[str, Callable[[], Iterator[Line]]] = {"envs": envs, "tasks": tasks, "configs": configs}


def _first_sentence(place: str, name: str) -> str:
    """Return the first sentence of the comment that a YAML file begins with.

    Args:
        place: Where Hydra has found it: `pkg://module` or `file://directory`.
        name: Of the file below that.
    """
    scheme, _, where = place.partition("://")
    root = files(where) if scheme == "pkg" else Path(where)
    path = root.joinpath(*name.split("/"))
    lines = path.read_text().splitlines() if path.is_file() else []
    comment = takewhile(lambda line: line.startswith("#"), lines)
    text = " ".join(line.lstrip("# ") for line in comment)
    return re.split(r"[.;](?:\s|$)", text)[0]


def _aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Iterator[str]:
    """Yield the rows as lines whose columns stand below each other; those of numbers to the right.

    The last column is as wide as it is: a path that is cut or folded cannot be pasted.
    """
    widths = [min(MAX_WIDTH, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{cell:{'>' if i in numbers else '<'}{width}}"
            for i, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))
        ]
        yield "  ".join([*cells, row[-1]]).rstrip()


def _runs(place: str, keyword: str) -> list[str]:
    """Return a table of the runs in a directory that contain the keyword.

    Raises:
        ConfigError: There is no such directory.
    """
    found = _with(keyword, list_runs(as_path("DIR", place)))
    header = [name.replace("_", " ") for name in RunLine._fields]
    numbers = [RunLine._fields.index(name) for name in ("iterations", "mean_return")]
    return list(_aligned([header, *found], numbers)) if found else []


def _with(keyword: str, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if keyword.lower() in " ".join(row).lower()]


def main() -> None:
    """Run the command line."""
    default = ExperimentConfig().output_dir
    parser = CommandParser(
        prog="appo list",
        description="List what can be trained and chosen; each line is what to type after "
        "appo train. Or the runs that there are, the newest first.",
        epilog="envs: the choices of env=. tasks: every id of Gymnasium, mjlab and Isaac Lab here. "
        "configs: every choice of every group. runs: when each was written to, its status, results "
        "and directory.",
    )
    parser.add_argument("what", nargs="?", choices=[*KINDS, "runs"], default="envs")
    parser.add_argument("place", nargs="?", metavar="DIR", help=f"of runs (default: {default})")
    parser.add_argument("--keyword", default="", help="only lines that contain it, in any case")
    arguments = parser.parse_args()
    what, place, keyword = arguments.what, arguments.place, arguments.keyword
    if place is not None and what != "runs":
        parser.error(f"{place}: only runs have a DIR; a word to look for is --keyword {place}")
    lines: list[str] = []

    def task() -> None:
        lines.extend(
            _runs(place or default, keyword)
            if what == "runs"
            else _aligned(_with(keyword, KINDS[what]()))
        )

    code = run_reporting_errors(task)
    if lines:
        print(*lines, sep="\n")
    elif code == 0:
        say_error(f"no {what}{f' with {keyword!r}' if keyword else ''}")
    sys.exit(code or not lines)


if __name__ == "__main__":
    main()
