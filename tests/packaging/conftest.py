"""Archives and throw-away environments for the packaging tests.

The tests marked `installed` run against whatever is installed: an editable install, or (`.ci/run`,
second pass) a wheel. The source tree around this file serves for building archives, and nothing
else.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE_TREE = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


class Archives(NamedTuple):
    wheel: Path
    sdist: Path


class HydraEnv(NamedTuple):
    """A Python with this package, and the Hydra version it should have (None: any 1.x)."""

    python: str
    hydra: str | None


def _run(
    *command: object, cwd: Path, timeout: float = 240, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", "COLUMNS": "100", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command in a directory, within a time limit, and check its exit code."""
    return _run


@pytest.fixture(scope="session")
def source_tree() -> Path:
    return SOURCE_TREE


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """Build the sdist, and the wheel from that sdist, so that the sdist is known to be enough."""
    dist = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, SOURCE_TREE, cwd=dist)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return Archives(wheel, sdist)


@pytest.fixture(scope="session")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pip of its own: a virtual environment made by uv has none."""
    env = tmp_path_factory.mktemp("pip") / "venv"
    _run(sys.executable, "-m", "venv", env, cwd=env.parent, timeout=400)
    return env / "bin" / "pip"


# The oldest Hydra and the next one, a wheel and an editable install; installed is the pinned Hydra,
# editable in the first pass of .ci/run and a wheel in its second.
HYDRA_ENVS = [
    pytest.param("installed", marks=pytest.mark.installed),
    *("wheel 1.3.2", "editable 1.4.0rc3"),
]


@pytest.fixture(scope="session", params=HYDRA_ENVS)
def hydra_env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HydraEnv:
    """Return the environment of the tests, or a new one with Hydra, this package, nothing else.

    Without torch there, that an application starts proves that the plugin does not need it.
    """
    if request.param == "installed":
        return HydraEnv(sys.executable, None)
    # Only now, as what they need to be built is not there where a wheel is tested.
    archives, pip = request.getfixturevalue("archives"), request.getfixturevalue("pip")
    how, version = request.param.split()
    env = tmp_path_factory.mktemp(f"{how}-{version}") / "venv"
    python = env / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--without-pip", env, cwd=env.parent)
    install = (pip, "--python", python, "install", "-qq", "--disable-pip-version-check")
    _run(*install, f"hydra-core=={version}", cwd=env.parent, timeout=240)
    package = [archives.wheel] if how == "wheel" else ["-e", SOURCE_TREE]
    _run(*install, "--no-deps", *package, cwd=env.parent, timeout=240)
    return HydraEnv(str(python), version)
