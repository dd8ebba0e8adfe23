"""Isaac Lab's flags and overrides in this package's spelling."""

import argparse
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import CheckpointError, ConfigError
from isaac_hydra_ext.scripts.reinforcement_learning.appo import play, train
from isaac_hydra_ext.scripts.reinforcement_learning.appo.flags import (
    LAUNCHER_FLAGS,
    hydra_tokens,
    imports_asked,
)

from .test_isaac_runs import write

TASK = ["--task", "Isaac-Cartpole-Direct-v0"]
CORES = len(os.sched_getaffinity(0))


def overrides(*arguments: str) -> list[str]:
    return train.overrides_of(*train.make_parser().parse([*TASK, *arguments]))


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as raised:
        overrides(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def loaded(tmp_path: Path, *arguments: str) -> Any:
    """What the run would be configured with."""
    tokens = overrides(*arguments, f"experiment.output_dir={tmp_path}")
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        return load_run_config(compose("train_appo", overrides=tokens), tokens)


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("env.decimation=4", "++env.cfg.decimation=4"),
        ("env.sim.dt=0.01", "++env.cfg.sim.dt=0.01"),
        ("+env.rewards.x.weight=1", "++env.cfg.rewards.x.weight=1"),
        ("~env.events.push", "++env.cfg.events.push=null"),
        ("++env.cfg.decimation=4", "++env.cfg.decimation=4"),
        ("env.task=X", "env.task=X"),
        ("physics=newton_mjwarp", "env.physics=newton_mjwarp"),
        ("renderer=a", "env.renderer=a"),
        ("presets=a,b", "env.presets=[a,b]"),
        ("agent.ppo.lr=1e-4", "ppo.lr=1e-4"),
        ("ppo.lr=1e-4", "ppo.lr=1e-4"),
        ("env=isaac_ant", "env=isaac_ant"),
        ("env.commands.x='a=b'", "++env.cfg.commands.x='a=b'"),
        ("--cfg", "--cfg"),
        ("job", "job"),
    ],
)
def test_isaac_labs_overrides_become_ours(typed: str, ours: str) -> None:
    assert hydra_tokens([typed]) == [ours]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("agent.algorithm.learning_rate=1e-4", "agent.algorithm.learning_rate: use ppo.lr"),
        ("agent.num_steps_per_env=4", "agent.num_steps_per_env: use rollout.steps_per_env"),
        ("agent.policy.actor_hidden_dims=[4]", "use policy.hidden_dims"),
        ("agent.algorithm.rnd_cfg.weight=1", "agent.algorithm.rnd_cfg.weight: rsl_rl's"),
    ],
)
def test_names_of_rsl_rl_are_refused_with_ours(typed: str, says: str) -> None:
    with pytest.raises(ConfigError, match="^agent") as raised:
        hydra_tokens([typed])
    assert says in str(raised.value)


def test_flags_reach_their_knobs_and_beat_what_is_typed(tmp_path: Path) -> None:
    config = loaded(
        tmp_path, "--num_envs", "64", "--num_workers", "2", "--seed", "5", "--device", "cpu",
        "--max_iterations", "7", "--experiment_name", "my run", "--run_name", "x", "--headless",
        "--kit_args", "--ext-folder=/a b", "--viz", "newton,rerun", "--agent", "none",
        "--import", "pkg.tasks", "--external_callback", "other.pkg.register",
        "--disable_fabric", "env.decimation=4", "physics=newton_mjwarp", "presets=a,b",
        "experiment.seed=9", "ppo.gamma=0.5",
    )  # fmt: skip
    assert (config.env.kind, config.env.task) == ("isaaclab", "Isaac-Cartpole-Direct-v0")
    assert (config.num_workers, config.rollout.envs_per_worker) == (2, 32)
    assert (config.experiment.seed, config.rollout.device) == (5, "cpu")
    assert (config.experiment.max_iterations, config.experiment.name) == (7, "my run")
    assert config.experiment.run_name == "x" and config.ppo.gamma == 0.5
    assert config.env.imports == ["pkg.tasks", "other.pkg:register"]
    assert config.env.cfg == {"decimation": 4, "sim": {"use_fabric": False}}
    assert config.env.physics == "newton_mjwarp" and config.env.presets == ["a", "b"]
    assert config.env.launcher == {
        "headless": True, "kit_args": "--ext-folder=/a b", "visualizer": "newton,rerun",
    }  # fmt: skip
    assert config.env.agent == "none"


def test_nothing_is_said_that_was_not_asked(tmp_path: Path) -> None:
    assert overrides() == ["env=isaac_any", "env.task=Isaac-Cartpole-Direct-v0"]
    config = loaded(tmp_path)
    assert config.rollout.device == "auto" and config.rollout.envs_per_worker is None
    assert config.env.launcher == {}


@pytest.mark.parametrize(
    ("total", "workers", "divided"),
    [
        (64, 4, (4, 16)),
        (3, 4, (3, 1)),  # fewer envs than workers
        (1, None, (1, 1)),
        (64, 0, (0, 64)),
        (17 * CORES, None, (max(1, CORES - 1), None)),
    ],
)
def test_num_envs_is_the_total(total: int, workers: int | None, divided: tuple) -> None:
    chosen = [] if workers is None else ["--num_workers", str(workers)]
    found = overrides("--num_envs", str(total), "--device", "cpu", *chosen)
    w, b = (int(t.split("=")[1]) for t in found[-2:])
    assert max(w, 1) * b == total
    if divided[1] is not None:
        assert (w, b) == divided


@pytest.mark.parametrize(
    ("total", "typed", "note"),
    [
        (257, [], "workers 3 -> 1: 257 envs do not divide among 3; the nearest that do are 255 "
         "and 258"),
        (4096, [], "workers 3 -> 2: 4096 envs do not divide among 3; the nearest that do are 4095 "
         "and 4098"),
        (2, [], "workers 3 -> 2: each needs an env"),
        (2, ["--num_workers", "5"], "workers 5 -> 2: each needs an env"),
        (4095, [], ""),
        (8, ["--num_workers", "4"], ""),
        (3, ["--num_workers", "0"], ""),
    ],
)  # fmt: skip
def test_workers_that_get_no_envs_are_told(
    total: int, typed: list[str], note: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    overrides("--num_envs", str(total), *typed)
    assert capsys.readouterr().err == (f"--num_envs={total}: {note}\n" if note else "")


def test_num_envs_is_per_rank_which_has_no_worker_on_its_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, value in Seat(size=2, local_size=2).variables(1, 29500).items():
        monkeypatch.setenv(name, value)
    found = overrides("--num_envs", "12", "--distributed", "--device", "cuda:0")
    assert found[-2:] == ["rollout.num_workers=0", "rollout.envs_per_worker=12"]
    assert not any("rollout.device" in token for token in found)


def test_a_typed_number_of_workers_is_divided_by() -> None:
    found = overrides("--num_envs", "12", "rollout.num_workers=3")
    assert found[-2:] == ["rollout.num_workers=3", "rollout.envs_per_worker=4"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--num_envs", "10", "--num_workers", "4"], "--num_envs=10: not divisible by 4 workers; "
         "8 and 12 are"),
        (["--num_envs", "0"], "--num_envs=0: must be at least 1"),
        (["--num_env", "4"], "--num_env: unknown flag; did you mean '--num_envs'"),
        (["--headles"], "--headles: unknown flag; did you mean '--headless'"),
        (["--num_envs", "x"], "invalid int value: 'x'"),
        (["--livestream", "7"], "invalid choice: 7"),
        (["--distributed"], "--distributed: torchrun starts it"),
        (["--load_run", "x"], "--load_run=x: needs --resume"),
        (["--max_iterations", "0"], "--max_iterations=0: must be at least 1"),
        (["--log_project_name", "x"], "--log_project_name=x: "),
        (["--checkpoint", "model_.*"], "--checkpoint=model_.*: no such file"),
        (["--resume", "--load_run", "("], "--load_run=(: not a regex"),
    ],
)  # fmt: skip
def test_bad_flags_are_refused_in_one_line(arguments: list[str], says: str) -> None:
    assert says in refusal(*arguments)


def test_io_descriptors_are_the_envs_own_setting(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--export_io_descriptors").env.cfg == {"export_io_descriptors": True}


def test_loggers_and_their_projects(tmp_path: Path) -> None:
    config = loaded(tmp_path, "--logger", "wandb", "--log_project_name", "my robots", "--quiet")
    assert config.logging.backends == ["wandb"]
    assert config.logging.wandb.project == "my robots" and config.logging.swanlab.project is None
    assert config.logging.console == "quiet"
    config = loaded(tmp_path, "--logger", "tensorboard,csv")
    assert config.logging.backends == ["tensorboard", "csv"]
    config = loaded(tmp_path, "logging.backends=[swanlab]", "--log_project_name", "x")
    assert config.logging.swanlab.project == "x"
    with pytest.raises(ConfigError, match="logging.backends=neptune: must be one of"):
        loaded(tmp_path, "--logger", "neptune")


def test_a_run_without_a_task_says_how_to_find_one() -> None:
    with pytest.raises(ConfigError, match=r"^--task: missing; --list_tasks"):
        train.overrides_of(*train.make_parser().parse(["--num_envs", "4"]))
    assert train.overrides_of(*train.make_parser().parse(["env=isaac_ant"])) == ["env=isaac_ant"]


def test_the_file_of_an_env_names_the_task_whose_runs_are_resumed(tmp_path: Path) -> None:
    ours = write(tmp_path, "2026-01-01_00-00-00", 5, 1.0, task="Isaac-Cartpole-Direct")
    write(tmp_path, "2026-01-02_00-00-00", 6, 1.0, task="Isaac-Ant-v0")
    where = f"experiment.output_dir={tmp_path}"

    def resumed(*arguments: str) -> str:
        tokens = train.overrides_of(*train.make_parser().parse([*arguments, where]))
        return tokens[-1].removeprefix("resume=")

    assert resumed("env=isaac_cartpole", "--resume") == str(ours)
    assert resumed("env=isaac_any", "env.task=Isaac-Cartpole-Direct-v0", "--resume") == str(ours)
    with pytest.raises(CheckpointError, match="task Isaac-Velocity-Flat-Unitree-Go1-v0"):
        resumed("env=isaac_go1_flat", "--resume")
    with pytest.raises(ConfigError, match=r"^env=mine: its task cannot be read here; say --task"):
        resumed("env=mine", "--resume")
    assert resumed("env=mine", "--checkpoint", str(ours)) == str(ours)


def test_resuming_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint under"):
        overrides("--resume", f"experiment.output_dir={tmp_path}")


@pytest.mark.parametrize("flag", play.TRAININGS)
def test_play_says_why_it_does_not_take_a_trainings_flag(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"^{flag}: the training's; "):
        play.play([*TASK, flag, "x"])


def test_plays_checkpoint_is_a_regex_with_resume(tmp_path: Path) -> None:
    where = f"experiment.output_dir={tmp_path}"
    with pytest.raises(ConfigError, match="a regex needs --resume"):
        play.play([*TASK, "--checkpoint", "model_.*", where])
    with pytest.raises(CheckpointError, match=r"^--resume: no checkpoint under .*model_\.\*"):
        play.play([*TASK, "--resume", "--checkpoint", "model_.*", where])


def test_what_registers_tasks_is_read_of_flags_else_of_the_override() -> None:
    def named(*arguments: str) -> list[str]:
        return imports_asked(*train.make_parser().parse(["--list_tasks", *arguments]))

    assert named() == []
    assert named("env.imports=[a.b,'c:d']", "env.imports=[pkg.tasks,other:register]") == [
        "pkg.tasks", "other:register",
    ]  # fmt: skip
    both = ["--import", "a.b", "--external_callback", "c.d.register", "env.imports=[e]"]
    assert named(*both) == ["a.b", "c.d:register"]
    for wrong in ("env.imports=a", "env.imports=[a"):
        with pytest.raises(ConfigError, match=r"a list is expected: env\.imports="):
            named(wrong)


def test_play_sets_overrides_above_the_checkpoints_configuration(tmp_path: Path) -> None:
    config = loaded(tmp_path, "env.decimation=4", "env.episode_length_s=9")
    changed = play.with_overrides(config, ["++env.cfg.decimation=8", "rollout.device=cpu"])
    assert changed.env.cfg == {"decimation": 8, "episode_length_s": 9}
    assert changed.rollout.device == "cpu"
    with pytest.raises(ConfigError, match="ppo.lrr"):
        play.with_overrides(config, ["ppo.lrr=1"])


@pytest.mark.isaaclab
@pytest.mark.skipif(
    importlib.util.find_spec("isaaclab") is None,
    reason="no Isaac Lab can be imported; scripts/test_isaac_lab.sh has one",
)
def test_the_launchers_flags_are_the_real_parsers() -> None:
    from isaaclab.app import sim_launcher  # type: ignore[import-not-found]

    theirs = argparse.ArgumentParser()
    sim_launcher.add_launcher_args(theirs)
    names = {o for a in theirs._actions for o in a.option_strings} - {"-h", "--help"}
    ours = {*LAUNCHER_FLAGS, "--viz", "--device"}
    assert names - ours == set(), "flags of the launcher that are not ours"
    of_2x = {"--headless", "--enable_cameras", "--rendering_mode"}
    assert ours - names == of_2x
    own = argparse.ArgumentParser()
    for action in train.make_parser()._actions:
        if action.dest != "help" and not set(action.option_strings) & ours:
            own.add_argument(*action.option_strings, dest=action.dest)
    sim_launcher.add_launcher_args(own)  # raises ValueError where a name collides
