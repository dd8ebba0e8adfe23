"""Nothing from outside is run, nothing secret gets out, and nonsense is told as our own error."""

import ast
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from live_run import LiveRun
from omegaconf import OmegaConf
from unit.builders import env_spec, run_config
from unit.checkpoint_samples import forge, meta

import isaac_hydra_ext
from isaac_hydra_ext.appo_runner import _hydra_task
from isaac_hydra_ext.checkpoint import (
    Checkpoint,
    changed_knobs,
    find_checkpoint,
    load_checkpoint,
    load_env_state,
    read_meta,
    save_checkpoint,
)
from isaac_hydra_ext.checkpoint_fit import check_fits
from isaac_hydra_ext.config import RunConfig, all_knobs, complete, load_config
from isaac_hydra_ext.errors import CheckpointError, ConfigError
from isaac_hydra_ext.evaluate import config_of
from isaac_hydra_ext.hydra_guard import check_hydra_node
from isaac_hydra_ext.learner.learner import Learner
from isaac_hydra_ext.metrics import EpisodeTracker, RunTotals

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


def fuzz(max_examples: int) -> settings:
    """The same inputs every time, and nothing kept between runs."""
    return settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


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


STATE = {"running": {"return": [[0.0, 1.0]], "length": [[1, 2]], "partial": [[True, False]]}}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint as a run writes it, of networks small enough to hash thousands of times."""
    learner = small_learner()
    about = meta(7, (1.0, 2.0), config=SMALL.to_dict(), env_states=[{"x": [1, "ü"]}])
    about["episodes"] |= STATE
    path = save_checkpoint(tmp_path_factory.mktemp("good"), 7, learner.state_dict(), about)
    go_on_from(path)
    return path.read_bytes()


SMALL = run_config(policy={"hidden_dims": [2], "normalize_obs": False})


@cache
def small_learner() -> Learner:
    return Learner(SMALL, env_spec(), torch.device("cpu"))


def go_on_from(path: Path) -> Checkpoint:
    """Everything that resuming and evaluating take from a file."""
    read_meta(path)
    load_env_state(path, 0)
    checkpoint, _ = find_checkpoint(str(path), path.parent)
    check_fits(checkpoint, small_learner().state_dict(), env_spec().to_json())
    small_learner().load_state_dict(checkpoint.tensors)
    EpisodeTracker(1, 2, [False]).load_state_dict(checkpoint.meta["episodes"])
    RunTotals(**checkpoint.meta["totals"])
    changed_knobs(checkpoint.meta["config"], SMALL)
    config_of(checkpoint)
    return checkpoint


# With the two below 10,000 inputs in all.
@fuzz(4900)
@given(data=st.binary(max_size=400), prefix=st.integers(0, 40), header=st.booleans())
def test_random_bytes_are_no_checkpoint(
    tmp_path: Path, good: bytes, data: bytes, prefix: int, header: bool
) -> None:
    path = tmp_path / "model_1.safetensors"
    content = good[:prefix] + data
    if header:  # a length that is right, and JSON that may not be
        text = b'{"__metadata__":{"isaac_hydra_ext":"' + data.hex().encode() + b'"}}'
        content = len(text).to_bytes(8, "little") + text
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@fuzz(4900)
@given(data=st.data())
def test_a_truncated_or_altered_checkpoint_is_refused(
    tmp_path: Path, good: bytes, data: st.DataObject
) -> None:
    path = tmp_path / "model_1.safetensors"
    content = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
    assume(bytes(content) != good)
    path.write_bytes(content)
    # A blank in the header, or another key's order, changes no value: what loads must be equal.
    try:
        loaded = load_checkpoint(path)
    except CheckpointError as e:
        assert str(path) in str(e)
    else:
        path.write_bytes(good)
        original = load_checkpoint(path)
        assert loaded.meta == original.meta
        assert all(torch.equal(t, original.tensors[k]) for k, t in loaded.tensors.items())
        assert loaded.tensors.keys() == original.tensors.keys()


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The address of every value in a tree."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


odd = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    *map(st.just, ([], {}, [[]], {"a": []}, 2**63, -1, 0, float("inf"), "../x", [1] * 50)),
)


@fuzz(200)
@given(data=st.data())
def test_forged_metadata_with_the_right_checksum_is_whole_or_refused(
    tmp_path: Path, good: bytes, data: st.DataObject
) -> None:
    path = tmp_path / "model_1.safetensors"
    path.write_bytes(good)
    checkpoint = load_checkpoint(path)
    about, tensors = checkpoint.meta, dict(checkpoint.tensors)
    for _ in range(data.draw(st.integers(1, 2))):
        *inner, last = data.draw(st.sampled_from(list(places(about))))
        node = about
        for key in inner:
            node = node[key]
        if data.draw(st.booleans()):
            node[last] = deepcopy(data.draw(odd))  # the next place may lie within it
        else:
            del node[last]
    if data.draw(st.integers(0, 4)) == 0:
        name = data.draw(st.sampled_from(sorted(tensors)))
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        dtype = data.draw(st.sampled_from([torch.float32, torch.int8, torch.bool, torch.float64]))
        tensors[data.draw(st.sampled_from([name, "optimizer.x", "/"]))] = torch.ones(shape).to(
            dtype
        )
    forge(path, json.dumps(about), tensors)
    try:
        go_on_from(path)
    except CheckpointError as e:
        assert str(path) in str(e) and "\n" not in str(e)


# ---------------------------------------------------------------- configuration

leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats()),
    *(st.text(max_size=20), st.binary(max_size=5)),
    *map(st.sampled_from, (["auto", "???", "${ppo.lr}", "${", "cuda:0", "gae", "..", "nan"],)),
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [key for key, _, _ in all_knobs()]


def nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


@fuzz(400)
@given(overrides=st.dictionaries(st.sampled_from([*KEYS, "ppo", "env", "x.y"]), values, max_size=3))
def test_any_value_anywhere_is_accepted_whole_or_a_config_error(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    cfg: dict[str, Any] = {"env": {"id": "Pendulum-v1"}}
    try:
        for key, value in overrides.items():
            cfg = OmegaConf.to_container(OmegaConf.merge(cfg, nested(key, value)))  # type: ignore
    except Exception:
        assume(False)  # not something that a composition can give
    try:
        config = load_config(cfg, [f"{key}=x" for key in overrides])
        complete(config, 8, [])
    except ConfigError as e:
        assert str(e)
    else:
        assert isinstance(config, RunConfig)
        assert 0 < config.ppo.lr < float("inf")


@pytest.fixture(scope="module")
def composer() -> Iterator[None]:
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        yield


@fuzz(100)
@given(
    key=st.sampled_from(KEYS),
    sign=st.sampled_from(["", "+", "++", "~"]),
    text=st.text(st.characters(max_codepoint=0x2FF, exclude_characters="\0~"), max_size=12),
)
def test_any_typed_override_is_accepted_or_refused_by_hydra_or_by_us(
    composer: None, key: str, sign: str, text: str
) -> None:
    typed = f"{sign}{key}={text}"
    try:
        load_config(compose("train_appo", overrides=[typed]), [typed])
    except (HydraException, ConfigError) as e:
        assert str(e)


@fuzz(40)
@given(
    key=st.sampled_from(
        [*KEYS, "env", "ppo", "hydra.job.name", "hydra.callbacks", "hydra/launcher"]
    ),
    sign=st.sampled_from(["", "+", "++", "~"]),
    text=st.one_of(
        st.text(st.characters(max_codepoint=0x2FF), max_size=12),
        st.sampled_from(["{_target_: os.mkdir}", "[" * 200, "1,2", "9" * 5000, "${oc.env:HOME}"]),
    ),
    flag=st.sampled_from([[], ["-m"], ["--cfg", "job"]]),
)
def test_any_command_line_is_composed_or_refused_before_hydra_acts(
    key: str, sign: str, text: str, flag: list[str]
) -> None:
    try:
        check_hydra_node([*flag, f"{sign}{key}={text}"], _hydra_task)
    except (HydraException, ConfigError) as e:
        assert str(e)


@pytest.mark.parametrize("name", ["../up", "/abs", "a/b", "..", ".", "a\\b", "a\0b", "a\nb", "  "])
@pytest.mark.parametrize("key", ["name", "run_name"])
@pytest.mark.parametrize("through", ["typed", "env.appo"])
def test_names_that_leave_the_run_directory_are_refused(name: str, key: str, through: str) -> None:
    cfg: dict[str, Any] = {"env": {"id": "Pendulum-v1"}}
    if through == "typed":
        cfg["experiment"] = {key: name}
    else:
        cfg["env"]["appo"] = {"experiment": {key: name}}
    with pytest.raises(ConfigError, match=f"experiment.{key}"):
        load_config(cfg)


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
        _, error = process.communicate(timeout=60)
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
    [
        *("experiment.run_name=${oc.env:SOME_API_TOKEN}", "hydra.job.env_copy=[SOME_API_TOKEN]"),
    ],
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
