"""The run's directory holds what the run was started with, and nothing secret."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from isaac_hydra_ext.run_dir import make_run_dir, write_inputs

from .builders import run_config


@pytest.fixture
def hydra_config() -> Iterator[HydraConfig]:
    """Hydra's own state, as in an application; put back afterwards."""
    instance = HydraConfig.instance()
    before = instance.cfg
    yield instance
    instance.cfg = before


def test_variables_that_an_application_hands_to_hydra_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hydra_config: HydraConfig
) -> None:
    secret = secrets.token_hex()  # a word of this file would be in git/*.diff
    monkeypatch.setenv("APPO_SECRET", secret)
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        overrides = ["hydra.job.env_copy=[APPO_SECRET]", "ppo.lr=0.5"]
        cfg = compose("train_appo", overrides, return_hydra_config=True)
    hydra_config.set_config(cfg)
    assert HydraConfig.get().job.env_set["APPO_SECRET"] == secret
    config = run_config(experiment={"output_dir": str(tmp_path), "name": "x"})
    run_dir = make_run_dir(config)
    task = OmegaConf.create({k: cfg[k] for k in cfg if k != "hydra"})
    write_inputs(run_dir, task, ["ppo.lr=0.5"], config, {"id": "Pendulum-v1"})
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert {"config.yaml", "hydra.yaml", "overrides.yaml", "agent.yaml", "env.yaml"} <= {
        path.name for path in files
    }
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    written = OmegaConf.load(run_dir / ".hydra" / "hydra.yaml")
    assert written.hydra.job.env_copy == ["APPO_SECRET"]
    assert written.hydra.launcher._target_.startswith("hydra.")
