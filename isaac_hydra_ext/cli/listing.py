"""What can be trained and chosen: `appo list`. Runs in one process; simulators in one beside it.

    appo list [envs|tasks|configs] [--keyword WORD]

Each line is what to type after `appo train`.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from itertools import takewhile
from pathlib import Path

from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.envs.registry import FACTS
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.probing import ProbeError, probe

SIMULATOR_TIMEOUT_S = 300.0  # Isaac Lab 2.x starts Kit to fill its registry
LIST_TASKS = """
import json, os
from isaac_hydra_ext.envs.registry import load_adapter
print("\\n" + json.dumps(load_adapter({kind!r}).list_tasks()), flush=True)
os._exit(0)  # Kit may not let go
"""
Line = tuple[str, str]  # what to type, what it is


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
                yield f"{group}={choice}", about


def envs() -> Iterator[Line]:
    """Yield the choices of the group `env`, and the simulators that packages register."""
    yield from (line for line in configs() if line[0].startswith("env="))
    for kind in entry_points.registered(entry_points.ENVS):
        yield f"env.kind={kind}", "registered by an installed package"


def tasks() -> Iterator[Line]:
    """Yield every id and task that a registry here holds; says on stderr what cannot be asked."""
    import gymnasium

    yield from ((f"env=gym_any env.id={name}", "") for name in sorted(gymnasium.registry))
    for kind, facts in FACTS.items():
        package = facts.package
        if not package:
            continue
        if importlib.util.find_spec(package) is None:
            print(f"{package}: not installed", file=sys.stderr)
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


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo list",
        description="List what can be trained and chosen; each line is what to type after "
        "appo train.",
        epilog="envs: the choices of env=. tasks: every id of Gymnasium, mjlab and Isaac Lab here. "
        "configs: every choice of every group.",
    )
    parser.add_argument("what", nargs="?", choices=list(KINDS), default="envs")
    parser.add_argument("--keyword", default="", help="only lines that contain it, in any case")
    arguments = parser.parse_args()
    word = arguments.keyword.lower()
    found = [line for line in KINDS[arguments.what]() if word in " ".join(line).lower()]
    width = min(60, max((len(typed) for typed, _ in found), default=0))
    for typed, about in found:
        print(f"{typed:{width}}  {about}".rstrip())
    if not found:
        print(f"no {arguments.what} with {arguments.keyword!r}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
