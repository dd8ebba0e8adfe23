"""The YAML files have the keys of the dataclasses; the defaults are the dataclasses' alone."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
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


def _unset(node: Any) -> Any:
    """The same keys, nested groups included, with nothing set."""
    return {
        f.name: _unset(value) if is_dataclass(value := getattr(node, f.name)) else "???"
        for f in fields(node)
    }


@pytest.mark.parametrize("group", [g for g in GROUPS if g != "env"])
def test_default_yaml_has_every_knob_in_order_and_sets_none(group: str) -> None:
    assert _load(f"{group}/default") == _unset(getattr(RunConfig(), group))
    assert list(_leaves(_load(f"{group}/default"))) == list(
        _leaves(_unset(getattr(RunConfig(), group)))
    )


def test_the_file_of_every_knob_has_every_knob_and_sets_none() -> None:
    expected = _unset(RunConfig())
    expected["env"] = {k: "???" for k in expected["env"] if k not in ISAAC_KNOBS}
    assert _load("appo_knobs") == expected
    assert list(_leaves(_load("appo_knobs"))) == list(_leaves(expected))


def test_every_group_has_files_and_train_appo_has_every_group() -> None:
    assert sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name[0] != "_") == sorted(
        GROUPS
    )
    top = _load("train_appo")
    chosen = {k for entry in top.pop("defaults") if isinstance(entry, dict) for k in entry}
    assert {c for c in chosen if not c.startswith("override ")} == set(GROUPS)
    assert set(top) == {"hydra"}


def test_a_multirun_lies_where_the_runs_do() -> None:
    assert _load("train_appo")["hydra"]["sweep"]["dir"].startswith(
        f"${{oc.select:experiment.output_dir,{RunConfig().experiment.output_dir}}}/"
    )


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
    appo = {} if env["trainer_defaults"] == "???" else env["trainer_defaults"]
    assert set(_leaves(appo)) <= {key for key, _, _ in all_knobs()}
    # What an env's file is not about, it does not set.
    named = {"kind", "id" if env["kind"] == "gym" else "task", "imports", "trainer_defaults"}
    assert {name for name, value in env.items() if value != "???"} <= named


@pytest.mark.parametrize("name", ENVS)
def test_env_yaml_is_a_valid_configuration(name: str, tmp_path: Path) -> None:
    env: dict[str, Any] = _load(f"env/{name}")
    for key in ("id", "task"):
        env[key] = "Some-Name" if env[key] == "???" else env[key]
    config = load_run_config({"env": env, "experiment": {"output_dir": str(tmp_path)}})
    recommended = {} if env["trainer_defaults"] == "???" else env["trainer_defaults"]
    for key in _leaves(recommended):
        section, knob = key.split(".")
        assert getattr(getattr(config, section), knob) == recommended[section][knob], key
