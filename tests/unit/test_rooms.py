"""The rooms of the package: modules import only downwards through the list, never in a circle.

Read from the sources, imports inside functions included.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import isaac_hydra_ext
from isaac_hydra_ext.cli.main import COMMANDS

PACKAGE = Path(isaac_hydra_ext.__file__).parent
# From the ground up. What is in no room stands at its place; `plugins` is Hydra's alone.
ROOMS = (
    "__init__", "errors", "plugins", "system", "config", "terminal", "envs", "models",
    "checkpoints", "rollout", "workers", "learner", "evaluation", "trackers", "reports", "export",
    "run", "appo_runner", "cli", "doctor", "tasks", "scripts",
)  # fmt: skip
AT_THE_ROOT = {"__init__", "__main__", "appo_runner", "errors"}
# `python -m isaac_hydra_ext.appo_runner` is the command; nothing else that is imported is one.
THE_ONE_UPWARDS = ("appo_runner.py", "isaac_hydra_ext.cli.train.main")
SIMULATORS = {"isaaclab": ("envs/isaac/", "tasks/"), "mjlab": ("envs/mjlab.py", "tasks/")}


def modules() -> list[Path]:
    """The package's sources, without templates and configs, which are data."""
    data = {"templates", "conf"}
    return sorted(p for p in PACKAGE.rglob("*.py") if not data & {*p.parts})


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every module that a source imports, and the line."""
    for module, line in all_imports(path):
        if (path.name, module) != THE_ONE_UPWARDS:
            yield module, line


def all_imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: a relative import"
            for alias in node.names:  # a module, or what is in one
                yield f"{node.module}.{alias.name}", node.lineno


def room_of(module: str) -> str:
    """`isaac_hydra_ext.rollout.slot` -> `rollout`; the package itself is `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "__init__"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_downwards(path: Path) -> None:
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if name == "__main__":
        return
    ours = ROOMS.index(name)
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(path)
        if module.split(".")[0] == "isaac_hydra_ext" and ROOMS.index(room_of(module)) > ours
    ]
    assert not wrong


def test_the_package_root_holds_four_modules_and_each_directory_is_a_room() -> None:
    root = {p.stem for p in PACKAGE.glob("*.py")}
    assert root <= AT_THE_ROOT
    directories = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert directories <= {*ROOMS, "conf", "templates"}


def test_nobody_imports_a_command() -> None:
    commands = {module for module, _ in COMMANDS.values()}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {module}"
        for path in modules()
        for module, line in imports(path)
        if path.name != "__main__.py" and {module, module.rpartition(".")[0]} & commands
    ]
    assert not wrong


def test_a_simulator_is_imported_in_its_own_place_only() -> None:
    for path in modules():
        where = str(path.relative_to(PACKAGE))
        for module, line in imports(path):
            for simulator, places in SIMULATORS.items():
                if module.split(".")[0].startswith(simulator):
                    assert where.startswith(places), f"{where}:{line} imports {module}"


def test_the_kind_of_an_env_is_asked_in_the_registry_alone() -> None:
    asked = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or node.attr != "kind":
                continue
            owner = ast.unparse(node.value)
            if owner.split(".")[-1] in ("env", "env_config"):
                asked.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert [a for a in asked if not a.startswith("envs/registry.py")] == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    names = {
        ".".join(("isaac_hydra_ext", *p.relative_to(PACKAGE).with_suffix("").parts)): p
        for p in modules()
    }
    for name, path in names.items():
        found = {m for m, _ in imports(path)}
        graph[name] = {t for t in names if t != name and (t in found or any(
            f.rpartition(".")[0] == t for f in found))}  # fmt: skip
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for below in graph[name]:
                visit(below, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())
