"""Isaac Lab's containers: what the two scripts do, and that nothing of theirs would change."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]
# What the containers hold. Python, torch, numpy and gymnasium are what a task breaks without.
CONTAINERS = {
    "Isaac Sim 4.5": ("3.10", {"torch": "2.5.1", "numpy": "1.26.4", "gymnasium": "0.29.1"}),
    "Isaac Sim 5.0": ("3.11", {"torch": "2.7.0", "numpy": "1.26.0", "gymnasium": "1.2.0"}),
    "Isaac Sim 5.1": ("3.11", {"torch": "2.7.0", "numpy": "1.26.0", "gymnasium": "1.2.0"}),
    "Isaac Sim 6.0": ("3.12", {"torch": "2.10.0", "numpy": "2.3.5", "gymnasium": "1.2.1"}),
    "Isaac Sim 6.2": ("3.12", {"torch": "2.11.0", "numpy": "2.3.5", "gymnasium": "1.2.1"}),
}
HYDRA = {"hydra-core": "1.3.2", "omegaconf": "2.3.0"}  # Isaac Lab's own requirement
# What NVIDIA has published of their exact pins: packaging in Isaac Sim's deps/pip.toml, pillow in
# the requirements of isaacsim-kernel 5.1.0.0.
PINNED = {
    "Isaac Sim 5.0": {"packaging": "23.0"},
    "Isaac Sim 5.1": {"packaging": "23.0", "pillow": "11.3.0"},
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_installing_would_change_nothing_of_the_containers(container: str) -> None:
    python, versions = CONTAINERS[container]
    pinned = PINNED.get(container, {})
    versions = {**versions, **HYDRA, **pinned}
    text = (REPOSITORY / "pyproject.toml").read_text()
    ours = re.findall(r'"([^"]+)"', re.search(r"^dependencies = \[(.*?)\]", text, re.S | re.M)[1])  # type: ignore[index]
    minimum = re.search(r'requires-python = ">=([\d.]+)"', text)
    assert minimum and Requirement(f"python>={minimum[1]}").specifier.contains(python)
    environment = {**default_environment(), "python_version": python, "extra": ""}
    waiting = [("this package", Requirement(r)) for r in ours]
    seen: set[str] = set()
    kept: set[str] = set()
    while waiting:
        by, requirement = waiting.pop()
        name = requirement.name.lower().replace("_", "-")
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        if name in versions:  # it is there: pip leaves it alone if it is good enough
            assert requirement.specifier.contains(versions[name]), f"{by} wants {requirement}"
            kept.add(name)
            continue
        if name in seen:
            continue
        seen.add(name)
        try:
            waiting += [(name, Requirement(r)) for r in requires(name) or ()]
        except PackageNotFoundError:
            continue  # of another platform
    assert {"tensorboard", "safetensors", "rich"} <= seen  # what would be new there
    assert {"torch", "numpy", "gymnasium", *pinned} <= kept


def write_tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def call(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    base = {k: v for k, v in os.environ.items() if k not in ("ACCEPT_EULA", "PYTHON")}
    line = [REPOSITORY / "scripts" / script, *arguments]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=120, env={**base, **env}, check=False
    )


@pytest.mark.parametrize("script", ["run_isaacsim_docker.sh", "install_inside_container.sh"])
def test_help_says_how(script: str) -> None:
    done = call(script, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ")


def test_the_container_gets_gpus_licence_mounts_and_the_command(tmp_path: Path) -> None:
    write_tool(tmp_path / "docker", '#!/usr/bin/env bash\nprintf "%s\\n" "$@"\nexit 7\n')
    path = f"{tmp_path}:{os.environ['PATH']}"
    cache = tmp_path / "cache"
    done = call(
        "run_isaacsim_docker.sh", "echo", "a b", PATH=path, ACCEPT_EULA="Y", CACHE=str(cache)
    )
    assert done.returncode == 7  # the container's
    words = done.stdout.splitlines()
    assert words[0] == "run" and words[words.index("--gpus") + 1] == "all"
    assert {"ACCEPT_EULA=Y", "PRIVACY_CONSENT=N"} <= set(words)
    assert f"{REPOSITORY}:/workspace/isaac_hydra_ext:rw" in words
    assert f"{cache}/ov:/root/.cache/ov:rw" in words and (cache / "ov").is_dir()
    assert words[-2:] == ["echo", "a b"]
    assert "scripts/install_inside_container.sh && exec" in words[-4]
    refused = call("run_isaacsim_docker.sh", PATH=path)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "ACCEPT_EULA=Y" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_the_installation_is_constrained_and_seen_by_hydra(tmp_path: Path) -> None:
    # The real Python, but for pip, which writes down what it was asked for.
    log = tmp_path / "log"
    write_tool(
        tmp_path / "python",
        f"""#!/usr/bin/env bash
if [[ "$1 $2" == "-m pip" ]]; then
  printf '%s\\n' "$@" >{log}
  for word in "$@"; do [[ -f $word ]] && cat "$word" >>{log}; done
  exit "${{PIP_CODE:-0}}"
fi
exec {sys.executable} "$@"
""",
    )
    done = call("install_inside_container.sh", "wandb", PYTHON=str(tmp_path / "python"))
    assert done.returncode == 0, done.stderr
    assert "Hydra finds IsaacHydraSearchPathPlugin" in done.stdout
    asked = log.read_text()
    assert "-e\n.[wandb]" in asked
    for name in ("torch", "numpy", "gymnasium"):
        assert re.search(rf"^{name}==\d", asked, re.M), "kept by a constraint"
    refused = call("install_inside_container.sh", PYTHON=str(tmp_path / "python"), PIP_CODE="1")
    assert refused.returncode == 1 and "error: not installed" in refused.stderr


def test_no_isaac_lab_is_one_line(tmp_path: Path) -> None:
    if Path("/isaac-sim/python.sh").exists():
        pytest.skip("inside a container")
    done = call("install_inside_container.sh", ISAACLAB_PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Isaac Lab at ") and done.stderr.count("\n") == 1
