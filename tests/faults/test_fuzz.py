"""Random checkpoints, overrides and command lines: whole, or refused with an error of our own."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from how_long import here
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from unit.builders import env_spec, run_config
from unit.checkpoint_samples import forge, meta

from isaac_hydra_ext.checkpoints.file import (
    Checkpoint,
    load_checkpoint,
    read_meta,
    save_checkpoint,
)
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.checkpoints.fit import check_fits
from isaac_hydra_ext.cli.hydra_guard import check_hydra_node
from isaac_hydra_ext.cli.train import hydra_task
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig, all_knobs
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import CheckpointError, ConfigError
from isaac_hydra_ext.evaluation.of_checkpoint import config_of
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.run.episodes import EpisodeTracker
from isaac_hydra_ext.run.resume import changed_knobs, resumed_totals


def fuzz(max_examples: int) -> settings:
    """The same inputs every time, and nothing kept between runs."""
    return settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# ---------------------------------------------------------------- checkpoints

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
def small_learner() -> PPO:
    return PPO(SMALL, env_spec(), torch.device("cpu"))


def go_on_from(path: Path) -> Checkpoint:
    """Everything that resuming and evaluating take from a file."""
    read_meta(path)
    checkpoint = find_checkpoint(str(path), path.parent).checkpoint
    check_fits(checkpoint, small_learner().state_dict(), env_spec().to_json())
    small_learner().load_state_dict(checkpoint.tensors)
    EpisodeTracker(1, 2, [False]).load_state_dict(checkpoint.meta["episodes"])
    resumed_totals(checkpoint)
    changed_knobs(checkpoint.meta["config"], SMALL)
    config_of(checkpoint)
    return checkpoint


# 300 damaged files with the test below, 9,800 under scripts/test_long.sh; each kind of damage has
# its share.
@pytest.mark.parametrize("begins", ["as nothing", "as ours", "with a length that is right"])
@fuzz(here(30, 1600))
@given(data=st.binary(max_size=400), prefix=st.integers(1, 40))
def test_random_bytes_are_no_checkpoint(
    tmp_path: Path, good: bytes, data: bytes, prefix: int, begins: str
) -> None:
    path = tmp_path / "model_1.safetensors"
    content = good[:prefix] + data if begins == "as ours" else data
    if begins == "with a length that is right":  # and JSON that may not be
        text = b'{"__metadata__":{"isaac_hydra_ext":"' + data.hex().encode() + b'"}}'
        content = len(text).to_bytes(8, "little") + text
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@pytest.mark.parametrize("how", ["truncated", "altered", "both"])
@pytest.mark.parametrize("part", ["length", "header", "tensors"])
@fuzz(here(23, 550))
@given(data=st.data())
def test_a_truncated_or_altered_checkpoint_is_refused(
    tmp_path: Path, good: bytes, part: str, how: str, data: st.DataObject
) -> None:
    path = tmp_path / "model_1.safetensors"
    header_end = 8 + int.from_bytes(good[:8], "little")
    begin, end = {"length": (0, 8), "header": (8, header_end), "tensors": (header_end, len(good))}[
        part
    ]
    content = bytearray(good)
    if how != "truncated":
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(begin, end - 1))] = data.draw(st.integers(0, 255))
    if how != "altered":
        del content[data.draw(st.integers(begin, end - 1)) :]
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


@fuzz(here(100, 200))
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


@fuzz(here(150, 400))
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
        config = load_run_config(cfg, [f"{key}=x" for key in overrides])
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


@fuzz(here(50, 100))
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
        load_run_config(compose("train_appo", overrides=[typed]), [typed])
    except (HydraException, ConfigError) as e:
        assert str(e)


@fuzz(here(20, 40))
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
        check_hydra_node([*flag, f"{sign}{key}={text}"], hydra_task)
    except (HydraException, ConfigError) as e:
        assert str(e)
