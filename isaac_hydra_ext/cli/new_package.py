"""`appo new NAME`: a package with an environment and its config, to go on from.

    appo new my_task [--directory DIR]

Runs in one process. What it writes is found by Hydra through a search-path plugin of its own, once
the package is installed or on PYTHONPATH: nothing in this package is edited.
"""

import importlib.util
import keyword
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.errors import ConfigError, shown

# Template -> where it goes.
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "plugin.py": "hydra_plugins/{name}_plugin.py",  # a namespace: no __init__.py beside it, ever
    "init.py": "{name}/__init__.py",
    "searchpath.py": "{name}/searchpath.py",
    "env.py": "{name}/env.py",
    "conf_init.py": "{name}/conf/__init__.py",
    "env.yaml": "{name}/conf/env/{name}.yaml",
    "test_env.py": "tests/test_{name}.py",
}
NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")


def new_package(name: str, directory: Path) -> Path:
    """Write the package into `directory/name`, whole or not at all; returns that.

    Args:
        name: Of the package, and of its config in the group `env`.
        directory: Where to put it.

    Raises:
        ConfigError: A name that cannot be a package's or is taken, or a place that is not free.
    """
    _check_name(name)
    target = directory / name
    if target.exists():
        raise ConfigError(f"{shown(target)}: exists already; choose another name or --directory")
    title = "".join(part.capitalize() for part in name.split("_"))
    values = {
        "name": name,
        "distribution": name.replace("_", "-"),
        "class_name": f"{title}Env",
        "env_id": f"{title}-v0",
        "experiment": f"{title}-v0".lower(),
    }
    templates = files("isaac_hydra_ext") / "templates" / "package"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".new-") as work:
            for template, place in FILES.items():
                path = Path(work, name, place.format(name=name))
                path.parent.mkdir(parents=True, exist_ok=True)
                text = (templates / f"{template}.template").read_text()
                path.write_text(Template(text).substitute(values))
            Path(work, name).rename(target)
    except OSError as e:
        raise ConfigError(f"{shown(target)}: cannot be written ({e})") from e
    return target


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(
            f"appo new {shown(repr(name))}: must be a package's name: 2 to 41 lower-case letters, "
            "digits and _, a letter first"
        )
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise ConfigError(f"appo new {name}: a module of this name can be imported already")
    if (files("isaac_hydra_ext") / "conf" / "env" / f"{name}.yaml").is_file():
        raise ConfigError(f"appo new {name}: env={name} is one of this package's configs")


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo new",
        description="Write a package with an environment and its config, to go on from; it trains "
        "as it is.",
    )
    parser.add_argument("name", help="of the package: letters, digits and _; also env=NAME")
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where to put it (default: here)"
    )
    arguments = parser.parse_args()

    def task() -> None:
        place = new_package(arguments.name, arguments.directory)
        print(f"wrote {place}")
        print(f"install it: pip install -e {place}  (or: export PYTHONPATH={place.absolute()})")
        print(f"train: appo train env={arguments.name}")

    sys.exit(run_reporting_errors(task))


if __name__ == "__main__":
    main()
