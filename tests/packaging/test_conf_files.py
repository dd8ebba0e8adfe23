"""The YAML files and the dataclasses say the same."""

from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import isaac_hydra_ext
from isaac_hydra_ext.config.schema import EnvConfig, RunConfig, all_knobs
from isaac_hydra_ext.envs.loading import load_run_config

pytestmark = pytest.mark.installed
CONF = Path(isaac_hydra_ext.__file__).parent / "conf"
GROUPS = [f.name for f in fields(RunConfig) if is_dataclass(getattr(RunConfig(), f.name))]
ENVS = sorted(f.stem for f in (CONF / "env").glob("*.yaml"))
# Knobs that only Isaac Lab's files show.
ISAAC_KNOBS = ["cfg", "physics", "renderer", "presets", "agent", "play", "launcher"]


def _load(name: str) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("group", [g for g in GROUPS if g != "env"])
def test_default_yaml_holds_the_dataclass_defaults_in_their_order(group: str) -> None:
    assert list(_load(f"{group}/default").items()) == list(
        asdict(getattr(RunConfig(), group)).items()
    )


def test_every_group_has_files_and_train_appo_has_every_group() -> None:
    assert sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name[0] != "_") == sorted(
        GROUPS
    )
    top = _load("train_appo")
    chosen = {k for entry in top.pop("defaults") if isinstance(entry, dict) for k in entry}
    assert {c for c in chosen if not c.startswith("override ")} == set(GROUPS)
    assert set(top) - {"hydra"} == {f.name for f in fields(RunConfig)} - set(GROUPS)


def test_the_promised_envs_are_there() -> None:
    assert set(ENVS) >= {
        "gym_pendulum", "gym_cartpole", "gym_any", "mjlab_cartpole_balance",
        "mjlab_cartpole_swingup", "mjlab_go1_flat", "mjlab_go1_rough", "mjlab_any",
        "isaac_cartpole", "isaac_ant", "isaac_go1_flat", "isaac_any",
    }  # fmt: skip


@pytest.mark.parametrize("name", ENVS)
def test_env_yaml_has_the_keys_of_env_config_and_known_recommendations(name: str) -> None:
    env = _load(f"env/{name}")
    known = [f.name for f in fields(EnvConfig)]
    if env["kind"] != "isaaclab":
        known = [name for name in known if name not in ISAAC_KNOBS]
    assert list(env) == known
    assert isinstance(env["appo"], dict)
    assert set(_leaves(env["appo"])) <= {key for key, _, _ in all_knobs()}


@pytest.mark.parametrize("name", ENVS)
def test_env_yaml_is_a_valid_configuration(name: str, tmp_path: Path) -> None:
    env = {k: "Some-Name" if v == "???" else v for k, v in _load(f"env/{name}").items()}
    config = load_run_config({"env": env, "experiment": {"output_dir": str(tmp_path)}})
    for key in _leaves(env["appo"]):
        section, knob = key.split(".")
        assert getattr(getattr(config, section), knob) == env["appo"][section][knob], key
