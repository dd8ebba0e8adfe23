"""What the wheel and the sdist hold, and which copy of the package these tests run against."""

import os
import re
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

import isaac_hydra_ext

PLUGIN = "hydra_plugins/isaac_hydra_ext_plugin.py"


def _must_have(source_tree: Path) -> set[str]:
    conf = source_tree / "isaac_hydra_ext" / "conf"
    modules = (source_tree / "isaac_hydra_ext").rglob("*.py")
    templates = (source_tree / "isaac_hydra_ext" / "templates").rglob("*.template")
    files = (*conf.rglob("*.yaml"), *modules, *templates)
    found = {str(f.relative_to(source_tree)) for f in files}
    assert "isaac_hydra_ext/templates/package/env.py.template" in found
    assert "isaac_hydra_ext/conf/train_appo.yaml" in found
    assert "isaac_hydra_ext/conf/__init__.py" in found  # Hydra 1.4 finds no configs without it
    return {*found, PLUGIN}


def _must_not_have(names: set[str]) -> None:
    assert "hydra_plugins/__init__.py" not in names  # it would hide other packages' plugins
    assert not [n for n in names if "site-packages" in n or n.startswith(("logs/", ".venv"))]


def test_wheel_content(archives: Any, source_tree: Path) -> None:
    with zipfile.ZipFile(archives.wheel) as wheel:
        names = set(wheel.namelist())
    assert _must_have(source_tree) <= names
    _must_not_have(names)
    top = {n.split("/")[0] for n in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"isaac_hydra_ext", "hydra_plugins"}
    assert any(n.endswith("LICENSE") for n in names)


def test_sdist_content(archives: Any, source_tree: Path) -> None:
    with tarfile.open(archives.sdist) as sdist:
        names = {n.partition("/")[2] for n in sdist.getnames()}
    wanted = {"pyproject.toml", "constraints.txt", "LICENSE", "scripts/test.sh"}
    assert _must_have(source_tree) | wanted <= names
    assert "tests/packaging/test_archives.py" in names
    _must_not_have(names)


def test_entry_points(archives: Any) -> None:
    entry_points = ConfigParser()
    entry_points.read_string(_dist_info(archives.wheel, "entry_points.txt"))
    assert dict(entry_points["hydra.plugins"]) == {
        "isaac_hydra_ext": "isaac_hydra_ext.plugins.searchpath_plugin:IsaacHydraSearchPathPlugin"
    }
    assert entry_points["console_scripts"]["appo"] == "isaac_hydra_ext.cli.main:main"


def test_core_dependencies_have_lower_bounds_only(archives: Any) -> None:
    metadata = Parser().parsestr(_dist_info(archives.wheel, "METADATA"))
    core = [d for d in metadata.get_all("Requires-Dist") or [] if "extra ==" not in d]
    names = {re.split(r"[^\w-]", d)[0] for d in core}
    assert names == {
        "hydra-core", "omegaconf", "torch", "gymnasium", "numpy", "tensorboard", "safetensors",
        "rich",
    }  # fmt: skip
    core.remove("hydra-core<1.5,>=1.3.2")  # some of its internal modules are used
    for dependency in core:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", dependency), dependency
    assert metadata["Requires-Python"] == ">=3.10"


def test_extras_have_lower_bounds_only_and_leave_a_containers_packages_alone(archives: Any) -> None:
    metadata = Parser().parsestr(_dist_info(archives.wheel, "METADATA"))
    assert set(metadata.get_all("Provides-Extra") or []) == {
        "isaaclab", "mjlab", "wandb", "swanlab", "video", "export", "plot", "sweep", "docs",
        "bench", "dev", "ray", "viewer",
    }  # fmt: skip
    extras = [d for d in metadata.get_all("Requires-Dist") or [] if "extra ==" in d]
    for dependency in extras:
        what, marker = re.split(r"\s*;\s*", dependency)
        if not what.startswith("isaac-hydra-ext["):  # other extras, of the same lines
            assert re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+", what), dependency
        assert not re.match(r"(torch|numpy|gymnasium)\b", what), dependency
        if "isaaclab" in marker:  # older ones and Kit's come as a container or checkout
            assert what == "isaaclab>=3.0" and "python_version == '3.12'" in marker, dependency


@pytest.mark.installed
def test_the_package_under_test_is_the_one_meant(source_tree: Path) -> None:
    place = Path(isaac_hydra_ext.__file__).resolve()
    if os.environ.get("APPO_EXPECT_WHEEL"):
        assert "site-packages" in place.parts
    else:
        assert place.parent == source_tree / "isaac_hydra_ext"


def _dist_info(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()
