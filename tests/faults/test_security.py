"""Nothing from outside is run, and nothing secret gets out; `test_fuzz.py` has the random input."""

import ast
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from live_run import HANG_S, LiveRun

import isaac_hydra_ext
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import CheckpointError, ConfigError

Live = Callable[..., LiveRun]
PACKAGE = Path(isaac_hydra_ext.__file__).parent
UNSAFE_MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"),
    *("jsonpickle", "runpy", "code", "codeop", "pty"),
}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"),
    *("torch.load", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader"),
    *("os.system", "os.popen", "os.execv", "os.execvp", "os.spawnv", "os.posix_spawn"),
    *("numpy.load", "np.load", "numpy.fromfile", "pandas.read_pickle", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "logging.config.dictConfig", "logging.config.listen"),
    *("asyncio.create_subprocess_shell", "multiprocessing.Queue", "multiprocessing.Manager"),
}
UNSAFE_METHODS = (".recv", ".instantiate", ".read_pickle", ".unsafe_load")  # `recv` unpickles


# ---------------------------------------------------------------- the source


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def unsafe(source: str) -> Iterator[str]:
    """What in a module could run data as code."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{a.name}" for a in node.names] + [str(node.module)]
        yield from (n for n in names if n in UNSAFE_CALLS or n.split(".")[0] in UNSAFE_MODULES)
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in UNSAFE_CALLS or f".{name}".endswith(UNSAFE_METHODS):
                yield name
        if isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
            yield node.arg


def test_no_module_of_the_package_can_run_data_as_code() -> None:
    beside = [PACKAGE.parent / name for name in ("hydra_plugins", "benchmarks", "scripts")]
    modules = [path for directory in (PACKAGE, *beside) for path in directory.rglob("*.py")]
    assert len(modules) > 30
    found = {str(path): list(unsafe(path.read_text())) for path in modules}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from dill import loads", "import os, marshal", "x = torch.load(f)"),
        *("yaml.load(f)", "eval('1')", "exec(s)", "run(s, shell=True)", "np.load(f)"),
        *("from torch import load", "pipe.recv()", "hydra.utils.instantiate(cfg)"),
        *("import runpy", "from yaml import full_load", "instantiate(cfg)", "torch.jit.load(f)"),
        *("x = np.load(f, allow_pickle=True)", "pandas.read_pickle(f)", "os.execv(p, a)"),
    ],
)
def test_the_scan_sees(line: str) -> None:
    assert list(unsafe(f"def f():\n    {line}\n"))


# ---------------------------------------------------------------- checkpoints


class Bomb:
    """Leaves a marker where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:  # noqa: D105
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["pickle", "torch.save"])
def test_a_pickle_named_as_a_checkpoint_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "run/checkpoints/model_5.safetensors"
    path.parent.mkdir(parents=True)
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(marker)))
    else:
        torch.save({"weights": Bomb(marker)}, path)
    for resume in (path, path.parent.parent):
        with pytest.raises(CheckpointError, match=r"model_5\.safetensors"):
            find_checkpoint(str(resume), tmp_path)
    assert not marker.exists()
    # It does what it is feared for.
    if how == "pickle":
        pickle.loads(path.read_bytes())
    else:
        with path.open("rb") as f:  # newer torch looks at a path's suffix
            torch.load(f, weights_only=False)
    assert marker.exists()


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize("name", ["../up", "/abs", "a/b", "..", ".", "a\\b", "a\0b", "a\nb", "  "])
@pytest.mark.parametrize("key", ["name", "run_name"])
@pytest.mark.parametrize("through", ["typed", "env.trainer_defaults"])
def test_names_that_leave_the_run_directory_are_refused(name: str, key: str, through: str) -> None:
    cfg: dict[str, Any] = {"env": {"id": "Pendulum-v1"}}
    if through == "typed":
        cfg["experiment"] = {key: name}
    else:
        cfg["env"]["trainer_defaults"] = {"experiment": {key: name}}
    with pytest.raises(ConfigError, match=f"experiment.{key}"):
        load_run_config(cfg)


TARGET_FILES = {
    "env/evil.yaml": "id: Pendulum-v1\nkwargs: {x: {_target_: os.mkdir, path: MARKER}}",
    "policy/evil.yaml": "_target_: os.mkdir\npath: MARKER",
    "experiment/evil.yaml": "defaults: [default, _self_]\nname: ../../evil",
    "hydra/callbacks/evil.yaml": "x: {_target_: os.mkdir, path: MARKER}",
    "hydra/job_logging/evil.yaml": (
        "{version: 1, handlers: {x: {class: os.mkdir, path: MARKER}}, root: {handlers: [x]}}"
    ),
}


def test_a_users_yaml_can_neither_name_code_nor_leave_the_output_directory(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    running = []
    for file, text in TARGET_FILES.items():
        group, path = file.rpartition("/")[0], tmp_path / "conf" / file
        path.parent.mkdir(parents=True)
        path.write_text(text.replace("MARKER", str(marker)))
        line = [sys.executable, "-m", "isaac_hydra_ext.appo_runner"]
        line += ["--config-dir", str(tmp_path / "conf")]
        line += [f"{group}=evil", f"experiment.output_dir={tmp_path}/logs"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append((file, subprocess.Popen(line, cwd=tmp_path, text=True, **pipes)))
    for file, process in running:
        _, error = process.communicate(timeout=HANG_S)
        assert process.returncode == 2, (file, error)
        told = error.strip()
        assert len(told.splitlines()) == 1, told
        assert told.startswith("error: "), told
        expected = {"experiment": "experiment.name", "hydra": "error: hydra."}
        assert expected.get(file.split("/")[0], "_target_") in told
    assert not marker.exists()
    assert not (tmp_path / "logs").exists()
    assert not list(tmp_path.parent.rglob("evil"))


# ---------------------------------------------------------------- what a run writes


@pytest.mark.parametrize(
    "override",
    ["experiment.run_name=${oc.env:SOME_API_TOKEN}", "hydra.job.env_copy=[SOME_API_TOKEN]"],
)
def test_a_configuration_that_names_an_environment_variable_is_refused(
    live: Live, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "canary-1b7e")
    run = live(override)
    assert run.finish() == 2, run.text()
    (line,) = run.text()[1].splitlines()
    assert line.startswith("error: ") and "canary" not in line
    assert not [p for p in run.logs.parent.rglob("*") if "canary" in p.name or p == run.logs]


def test_a_run_writes_no_environment_variable_and_no_file_wider_than_the_umask(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary-1b7e-not-to-be-seen"
    monkeypatch.setenv("SOME_API_TOKEN", canary)
    monkeypatch.setenv("HYDRA_TEST_PASSWORD", canary)
    before = os.umask(0o077)
    try:
        run = live("experiment.max_iterations=2", "checkpoint.every=1")
    finally:
        os.umask(before)
    assert run.finish() == 0, run.text()
    assert canary not in "".join(run.text())
    files = [p for p in run.logs.rglob("*") if p.is_file()]
    assert len(files) > 8 and any(".safetensors" in p.name for p in files)
    assert [p for p in files if canary.encode() in p.read_bytes()] == []
    wide = [p for p in run.logs.rglob("*") if stat.S_IMODE(p.stat().st_mode) & 0o077]
    assert wide == []
