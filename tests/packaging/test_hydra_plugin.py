"""Hydra applications that have nothing to do with this package, in environments that have it."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

APP = """
import json
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    print(json.dumps({
        "config": OmegaConf.to_container(cfg),
        "hydra": hydra.__version__,
        "plugins": [p.__name__ for p in Plugins.instance().discover(SearchPathPlugin)],
        "providers": [s.provider for s in HydraConfig.get().runtime.config_sources],
        "modules": sorted(sys.modules),
    }))


main()
"""

COMPOSE = """
import json
import sys

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

with initialize_config_dir(config_dir=sys.argv[1], version_base="1.3"):
    print(json.dumps({
        choice: OmegaConf.to_container(compose("config", overrides=["+" + choice]))
        for choice in sys.argv[2:]
    }))
"""


READ = """
import json
import sys

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from isaac_hydra_ext.config.reading import read

OmegaConf.clear_resolver("oc.env")
OmegaConf.register_new_resolver("oc.env", lambda name: f"the application's {name}")
with initialize_config_dir(config_dir=sys.argv[1], version_base="1.3"):
    user = read(compose("config", overrides=sys.argv[2:]), sys.argv[2:]).user
print(json.dumps({"user": user, "env": OmegaConf.create({"x": "${oc.env:X}"}).x}))
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return the directory of an unrelated application: `app.py`, `conf/config.yaml`."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("mine: 1\n")
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def _report(run: Any, hydra_env: Any, app: Path, *overrides: str) -> dict[str, Any]:
    return json.loads(run(hydra_env.python, "app.py", *overrides, cwd=app).stdout)


def _read(file: Path) -> Any:
    """Read a config file with the ones of its own group that it starts from."""
    own = OmegaConf.load(file)
    assert isinstance(own, DictConfig)
    bases = [name for name in own.pop("defaults", []) if name != "_self_"]
    merged = OmegaConf.merge(*(OmegaConf.load(file.parent / f"{b}.yaml") for b in bases), own)
    return OmegaConf.to_container(merged)


def test_the_plugin_is_discovered_exactly_once(run: Any, hydra_env: Any, app: Path) -> None:
    report = _report(run, hydra_env, app)
    assert report["hydra"] == hydra_env.hydra or hydra_env.hydra is None
    assert report["plugins"].count("IsaacHydraSearchPathPlugin") == 1
    assert report["providers"].count("isaac_hydra_ext") == 1


def test_an_application_composes_our_groups_into_its_own_config(
    run: Any, hydra_env: Any, app: Path
) -> None:
    report = _report(
        run, hydra_env, app, "+ppo=default", "+env=gym_pendulum", "+rollout=default", "ppo.lr=0.5"
    )
    assert set(report["config"]) == {"mine", "ppo", "env", "rollout"}
    assert report["config"]["mine"] == 1
    assert report["config"]["ppo"]["lr"] == 0.5
    assert report["config"]["env"]["id"] == "Pendulum-v1"
    assert report["config"]["rollout"]["max_policy_lag"] == "???", "what nobody sets is not set"


def test_every_file_of_every_group_composes(
    run: Any, hydra_env: Any, app: Path, source_tree: Path
) -> None:
    files = sorted((source_tree / "isaac_hydra_ext" / "conf").glob("*/*.yaml"))
    assert {f.parent.name for f in files} >= {"env", "rollout", "ppo", "policy", "experiment"}
    choices = {f"{f.parent.name}={f.stem}": f for f in files}
    (app / "compose.py").write_text(COMPOSE)
    done = run(hydra_env.python, "compose.py", app / "conf", *choices, cwd=app)
    assert json.loads(done.stdout) == {
        choice: {"mine": 1, f.parent.name: _read(f)} for choice, f in choices.items()
    }


def test_a_group_file_that_holds_a_few_keys_leaves_the_others_to_be_typed(
    run: Any, hydra_env: Any, app: Path, source_tree: Path
) -> None:
    (app / "conf" / "config.yaml").write_text("defaults: [train_appo, _self_]\nresume: latest\n")
    (app / "conf" / "ppo").mkdir()
    (app / "conf" / "ppo" / "mine.yaml").write_text("lr: 0.001\n")
    (app / "conf" / "ppo" / "default.yaml").write_text("lam: 0.5\n")  # not what `mine` starts from
    typed = ["ppo=mine", "ppo.gamma=0.99", "experiment.seed=3", "+policy.obs_groups.actor=[a]"]
    typed += ["experiment.run_name='seed${experiment.seed}_${ppo.clip}'"]
    (app / "read.py").write_text(READ)
    found = json.loads(run(hydra_env.python, "read.py", app / "conf", *typed, cwd=app).stdout)
    conf = source_tree / "isaac_hydra_ext" / "conf"
    pendulum = _read(conf / "env" / "gym_pendulum.yaml")
    assert found["user"] == {
        "resume": "latest",
        "env": {key: value for key, value in pendulum.items() if value != "???"},
        "ppo": {"lr": 0.001, "gamma": 0.99},
        "experiment": {"seed": 3, "run_name": "seed3_0.2"},
        "policy": {"obs_groups": {"actor": ["a"]}},
    }
    assert found["env"] == "the application's X"


def test_an_unset_knob_is_shown_completed_and_swept(run: Any, hydra_env: Any, app: Path) -> None:
    (app / "conf" / "config.yaml").write_text("defaults: [train_appo, _self_]\n")
    shown = run(hydra_env.python, "app.py", "--cfg", "job", "ppo.lr=1e-3", cwd=app).stdout
    assert "\n  lr: 0.001\n" in shown and "\n  lam: ???\n" in shown
    line = "app.py ppo.ga"
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = run(hydra_env.python, "app.py", "-sc", "query=bash", cwd=app, **asked)
    assert done.stdout.split() == ["ppo.gamma="]
    done = run(hydra_env.python, "app.py", "-m", "ppo.lr=1e-3,2e-3", "ppo=vtrace", cwd=app)
    jobs = [json.loads(line)["config"]["ppo"] for line in done.stdout.splitlines() if "{" in line]
    assert [(ppo["lr"], ppo["lam"], ppo["advantages"]) for ppo in jobs] == [
        (0.001, "???", "vtrace"),
        (0.002, "???", "vtrace"),
    ]


def test_an_applications_own_configs_of_the_same_names_win(
    run: Any, hydra_env: Any, app: Path
) -> None:
    for group, choice in (("ppo", "default"), ("env", "gym_pendulum"), ("policy", "default")):
        (app / "conf" / group).mkdir()
        (app / "conf" / group / f"{choice}.yaml").write_text(f"whose: theirs, {group}\n")
    (app / "conf" / "train_appo.yaml").write_text("whose: theirs\n")
    (app / "conf" / "config.yaml").write_text("defaults: [train_appo, ppo: default]\nmine: 1\n")
    report = _report(run, hydra_env, app, "+env=gym_pendulum", "+policy=default")
    assert report["config"] == {
        "mine": 1,
        "whose": "theirs",
        "ppo": {"whose": "theirs, ppo"},
        "env": {"whose": "theirs, env"},
        "policy": {"whose": "theirs, policy"},
    }


def test_an_unrelated_start_up_is_unchanged_and_imports_nothing_heavy(
    run: Any, hydra_env: Any, app: Path
) -> None:
    report = _report(run, hydra_env, app, "+added=2")
    assert report["config"] == {"mine": 1, "added": 2}
    heavy = {"torch", "numpy", "gymnasium", "tensorboard", "safetensors", "rich", "mjlab"}
    assert not heavy & set(report["modules"])
    ours = {m for m in report["modules"] if m.split(".")[0] == "isaac_hydra_ext"}
    assert "isaac_hydra_ext.plugins.searchpath_plugin" in ours
    assert ours <= {
        "isaac_hydra_ext",
        "isaac_hydra_ext.conf",
        "isaac_hydra_ext.plugins",
        "isaac_hydra_ext.plugins.searchpath_plugin",
    }
