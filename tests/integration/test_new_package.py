"""`appo new` writes a package that trains as it is; `appo list` finds it, and all the rest."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gymnasium.envs.classic_control import PendulumEnv
from isaac_stage import stage

import isaac_hydra_ext
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.cli import listing
from isaac_hydra_ext.cli.new_package import FILES, new_package
from isaac_hydra_ext.envs.gym_ids import what_it_needs
from isaac_hydra_ext.envs.registry import FACTS
from isaac_hydra_ext.errors import ConfigError

Appo = Callable[..., subprocess.CompletedProcess[str]]
CONF = Path(isaac_hydra_ext.__file__).parent / "conf"


@pytest.fixture
def appo(tmp_path: Path) -> Appo:
    """Run `appo ...` with more directories on the path."""

    def run(*words: str, path: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        program = "from isaac_hydra_ext.cli.main import main; main()"
        parts = [path, *sys.path] if path else sys.path
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in parts if p)},
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def test_it_trains_with_no_edit_here(appo: Appo, tmp_path: Path) -> None:
    said = appo("new", "my_task").stdout
    assert "train: appo train env=my_task" in said
    package = tmp_path / "my_task"
    assert {str(p.relative_to(package)) for p in package.rglob("*") if p.is_file()} == {
        place.format(name="my_task") for place in FILES.values()
    }
    path = str(package)
    listed = appo("list", "--keyword", "my_task", path=path).stdout.strip()
    assert listed == "env=my_task  A point driven to a target: the environment of my_task/env.py"
    appo("train", "env=my_task", "experiment.max_iterations=15", "experiment.device=cpu",
         "logging.console=quiet", path=path)  # fmt: skip
    (run,) = (tmp_path / "logs" / "appo" / "mytask-v0").iterdir()
    checkpoint = find_checkpoint(str(run), tmp_path).checkpoint
    assert checkpoint.meta["iteration"] == 15
    assert checkpoint.meta["config"]["policy"]["hidden_dims"] == [32, 32], "what its config says"
    finished = [r for r, _ in checkpoint.meta["episodes"]["finished"]]
    assert finished, "episodes have ended"
    said = appo("eval", "latest", "experiment.name=mytask-v0", path=path).stdout
    assert "length 60.0 +- 0.0" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["logs", "my_task"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=package, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_without_it_on_the_path_the_name_is_unknown(appo: Appo) -> None:
    appo("new", "my_task")
    assert "env=my_task: no such config" in appo("train", "env=my_task", code=2).stderr


def test_what_is_written_is_as_tidy_as_this_package(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    package = new_package("my_task", tmp_path)
    for command in (
        ["check", "--select", "E,F,I,B,UP,SIM,D", "--ignore", "D203,D213,D413"],
        ["format", "--check"],
    ):
        line = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "100", "."]
        done = subprocess.run(line, cwd=package, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


def test_it_builds_a_wheel_with_all_that_hydra_needs(tmp_path: Path) -> None:
    pytest.importorskip("build")
    package = new_package("my_task", tmp_path)
    line = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(line, cwd=package, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = (package / "dist").glob("*.whl")
    with zipfile.ZipFile(archive) as wheel:
        names = wheel.namelist()
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "my_task = my_task.searchpath:SearchPath" in wheel.read(entry_points).decode()
    for place in ("hydra_plugins/my_task_plugin.py", "my_task/conf/env/my_task.yaml",
                  "my_task/conf/__init__.py", "my_task/env.py"):  # fmt: skip
        assert place in names
    assert "hydra_plugins/__init__.py" not in names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My-Task", "must be a package's name"),
        ("../x", "must be a package's name"),
        ("x" * 60, "must be a package's name"),
        ("", "must be a package's name"),
        ("lambda", "must be a package's name"),
        ("json", "a module of this name can be imported already"),
        ("torch", "a module of this name can be imported already"),
        ("gym_pendulum", "env=gym_pendulum is one of this package's configs"),
    ],
)
def test_names_that_cannot_be(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        new_package(name, tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_places_that_are_not_free(tmp_path: Path) -> None:
    (tmp_path / "my_task").mkdir()
    with pytest.raises(ConfigError, match="my_task: exists already"):
        new_package("my_task", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        new_package("my_task", tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "my_task"]
    assert not list((tmp_path / "my_task").iterdir())


def test_every_choice_of_every_group_is_listed_with_what_it_is() -> None:
    listed = dict(listing.configs())
    ours = {f"{f.parent.name}={f.stem}" for f in CONF.glob("*/*.yaml")}
    assert ours <= set(listed)
    assert listed["env=gym_cartpole"] == "Gymnasium's CartPole: balance for 500 steps"
    assert all(listed[name] for name in ours), "each file begins with a comment"
    assert {name for name in listed if name.startswith("env=")} == {n for n, _ in listing.envs()}


def test_tasks_are_those_of_the_registries(
    appo: Appo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stand-in of Isaac Lab too, which only a process of its own may import."""
    monkeypatch.setenv("PYTHONPATH", stage("ga", tmp_path)["PYTHONPATH"])
    root = str(tmp_path / "isaac_ga")
    done = appo("list", "tasks", path=root)
    lines = done.stdout.splitlines()
    assert "env=gym_any env.id=Pendulum-v1" in lines
    gym = [line for line in lines if line.startswith("env=gym_any")]
    # Counted in a fresh process: other tests register environments in this one.
    count = "import gymnasium; print(*(n for n in gymnasium.registry if 'UnitTest' not in n))"
    names = subprocess.check_output([sys.executable, "-c", count], text=True, timeout=60).split()
    assert len(gym) == len(names) > 50
    assert any(line.startswith("env=isaac_any env.task=Isaac-Cartpole") for line in lines)
    if "mjlab: not installed" not in done.stderr:
        assert "env=mjlab_any env.task=Mjlab-Cartpole-Balance" in lines


def test_what_cannot_be_made_here_is_listed_with_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def needs(entry: Any) -> str:
        return what_it_needs(SimpleNamespace(entry_point=entry))

    assert needs("gymnasium.envs.classic_control.pendulum:PendulumEnv") == "" == needs(PendulumEnv)
    assert needs("no_such_robots.hand:Hand") == "the module no_such_robots"
    assert needs(None).startswith("an entry_point")
    monkeypatch.syspath_prepend(tmp_path)
    told = "no Robots: run `pip install swig` and then `pip install 'robots[hand]'`"
    (tmp_path / "robots_without.py").write_text(f"raise ImportError({told!r})")
    assert needs("robots_without:Hand") == "pip install swig; pip install 'robots[hand]'"

    def moved() -> None:
        raise ImportError("it has moved")

    assert needs(moved) == "", "somebody else's function may build an env"
    moved.__module__ = "gymnasium.envs"
    assert needs(moved) == "it has moved"
    facts = replace(FACTS["mjlab"], package="no_such_simulator")
    monkeypatch.setitem(FACTS, "mjlab", facts)
    listed = dict(listing.envs())
    assert listed["env=mjlab_any"].endswith("; needs: pip install 'isaac-hydra-ext[mjlab]'")
    assert "needs" not in listed["env=gym_pendulum"]


def test_a_simulator_that_crashes_leaves_the_others(appo: Appo, tmp_path: Path) -> None:
    (tmp_path / "broken" / "mjlab").mkdir(parents=True)
    (tmp_path / "broken" / "mjlab" / "__init__.py").write_text("import os; os.abort()")
    done = appo("list", "tasks", "--keyword", "Cartpole-", path=str(tmp_path / "broken"))
    assert "env=gym_any env.id=CartPole-v1" in done.stdout.splitlines()
    assert "env=mjlab_any" not in done.stdout
    assert "mjlab: its tasks cannot be listed: crashed with SIGABRT" in done.stderr


def test_nothing_found_is_said(appo: Appo) -> None:
    assert appo("list", "--keyword", "zzz", code=1).stderr == "no envs with 'zzz'\n"
    assert "invalid choice: 'env'" in appo("list", "env", code=2).stderr
