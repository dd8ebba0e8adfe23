"""The run's directory holds what the run was started with, and nothing secret."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from isaac_hydra_ext.checkpoints.find import list_runs
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError, EnvError
from isaac_hydra_ext.run.directory import RunDirectory, make_run_dir, runs_root, write_inputs

from ..builders import run_config


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
    write_inputs(run_dir, ["ppo.lr=0.5"], config, {"id": "Pendulum-v1"})
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert {"config.yaml", "hydra.yaml", "overrides.yaml", "agent.yaml", "env.yaml"} <= {
        path.name for path in files
    }
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    written = OmegaConf.load(run_dir / ".hydra" / "hydra.yaml")
    assert written.hydra.job.env_copy == ["APPO_SECRET"]
    assert written.hydra.launcher._target_.startswith("hydra.")


def test_both_records_of_the_configuration_say_the_same(tmp_path: Path) -> None:
    config = run_config(experiment={"output_dir": str(tmp_path), "name": "x"}, ppo={"lr": 0.5})
    run_dir = make_run_dir(config)
    write_inputs(run_dir, [], config, {})
    for path in (".hydra/config.yaml", "params/agent.yaml"):
        written = OmegaConf.to_container(OmegaConf.load(run_dir / path))
        assert written == config.to_dict()
        assert load_run_config(written).to_dict() == config.to_dict()  # type: ignore[arg-type]


def test_a_reserved_directory_is_moved_to_the_name_that_the_task_gives(tmp_path: Path) -> None:
    config = RunConfig()
    config.experiment.output_dir = str(tmp_path / "logs" / "appo")
    for lasting in (False, True):
        config.experiment.name = None
        announced: list[Path] = []
        with RunDirectory(config, announced.append, lasting) as reserved:
            (told,) = announced
            assert told.is_dir() and list_runs(tmp_path, "logs/appo/*/*") == []
            config.experiment.name = "ant"
            run_dir = reserved.settle(config, [], {})
            assert run_dir.parent == tmp_path / "logs/appo/ant" and run_dir.name == told.name
            (told / "events").write_text("x")  # what is written there is the run's
            assert (run_dir / "events").exists() and told.resolve() == run_dir
            assert list_runs(tmp_path, "logs/appo/*/*") == [run_dir]
        assert told.is_symlink() is lasting and run_dir.is_dir()
        if lasting:
            assert (told / "events").exists()
        shutil.rmtree(tmp_path / "logs")


def test_a_reserved_directory_of_a_named_run_is_its_own(tmp_path: Path) -> None:
    config = RunConfig()
    config.experiment.output_dir, config.experiment.name = str(tmp_path), "ant"
    announced: list[Path] = []
    with RunDirectory(config, announced.append, lasting=False) as reserved:
        assert [reserved.settle(config, [], {})] == announced
    assert announced[0].is_dir() and (announced[0] / "checkpoints").is_dir()


def test_two_reserved_in_one_second_are_two_runs(tmp_path: Path) -> None:
    config, other = RunConfig(), RunConfig()
    config.experiment.output_dir = other.experiment.output_dir = str(tmp_path)
    announced: list[Path] = []
    with RunDirectory(config, announced.append, lasting=True) as reserved:
        config.experiment.name = "ant"
        first = runs_root(config) / announced[0].name
        first.mkdir(parents=True)
        (first / "taken").write_text("")
        second = reserved.settle(config, [], {})
        assert second != first and announced[0].resolve() == second
        assert not (second / "taken").exists()


def test_nothing_is_left_of_a_run_that_did_not_begin(tmp_path: Path) -> None:
    config = RunConfig()
    config.experiment.output_dir = str(tmp_path / "logs" / "appo")
    with pytest.raises(RuntimeError), RunDirectory(config, lambda path: None, lasting=True):
        raise RuntimeError("no such task")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("announce", [None, lambda path: None])
@pytest.mark.parametrize(
    ("error", "written", "kept"),
    [
        (EnvError, "", False),
        (EnvError, "no such mesh", True),
        (ConfigError, "it cannot be read", False),  # the error says what to change
        (KeyboardInterrupt, "", False),
    ],
)
def test_a_failed_start_leaves_what_tells_more_than_its_error(
    tmp_path: Path,
    announce: Callable[[Path], None] | None,
    error: type[BaseException],
    written: str,
    kept: bool,
) -> None:
    config = run_config(experiment={"output_dir": str(tmp_path / "logs" / "appo")})
    config.experiment.name = None
    with pytest.raises(error), RunDirectory(config, announce, lasting=True) as directory:
        config.experiment.name = "ant"
        run_dir = directory.settle(config, [], {})
        (run_dir / "summary.json").write_text("{}")
        (run_dir / "workers" / "worker_0.log").write_text(written)
        raise error
    assert run_dir.exists() is kept and (tmp_path / "logs").exists() is kept


def test_a_run_that_has_begun_keeps_its_directory_however_it_ends(tmp_path: Path) -> None:
    config = run_config(experiment={"output_dir": str(tmp_path / "logs"), "name": "x"})
    with pytest.raises(EnvError), RunDirectory(config, None, lasting=False) as directory:
        run_dir = directory.settle(config, [], {})
        assert directory.keep("the run") == "the run"
        raise EnvError
    assert (run_dir / "params" / "agent.yaml").is_file()
