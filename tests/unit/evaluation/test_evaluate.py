"""Evaluation: the checkpoint's own configuration, and whole episodes counted fairly."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.cli.named_checkpoint import find, task_asked
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import (
    CheckpointError,
    ConfigError,
    InvalidNumberError,
    RenderError,
)
from isaac_hydra_ext.evaluation.of_checkpoint import config_of, evaluate, video_path, with_overrides
from isaac_hydra_ext.learner.ppo.ppo import PPO

from ..builders import discrete, env_spec, run_config
from ..checkpoint_samples import write
from ..config.test_config_refusals import loaded
from ..gym_samples import PREFIX, Counter, register

register()


def checkpoint_of(config: RunConfig, tensors: dict[str, torch.Tensor] | None = None) -> Checkpoint:
    spec = env_spec(2, {"policy": ((2,), "float32")}, discrete(2)).to_json()
    meta = {"config": config.to_dict(), "iteration": 9, "spec": spec}
    meta = json.loads(json.dumps(meta))
    return Checkpoint(Path("some/model_9.safetensors"), tensors or {}, meta)


@pytest.mark.parametrize(
    "typed",
    [
        (),
        ("policy.hidden_dims=[256,128,64]",),  # a default, typed against the recommended [64, 64]
        ("policy.normalize_values=false",),
        ("ppo.gamma=0.99", "ppo.batch_size=100"),
    ],
)
def test_the_configuration_is_the_one_that_was_trained_with(typed: tuple[str, ...]) -> None:
    trained = loaded("env=gym_pendulum", *typed)
    found = config_of(checkpoint_of(trained))
    assert found.policy == trained.policy
    assert found.ppo == replace(trained.ppo, precision="fp32"), "which is this machine's"
    assert found.rollout == trained.rollout


def test_a_checkpoint_with_an_earlier_name_is_played() -> None:
    checkpoint = checkpoint_of(loaded("env=gym_pendulum"))
    env = checkpoint.meta["config"]["env"]
    env["appo"] = env.pop("trainer_defaults")
    assert config_of(checkpoint).ppo.gamma == 0.95


def test_it_runs_on_this_machine_whatever_the_training_ran_on() -> None:
    trained = loaded("env=gym_pendulum")
    trained.experiment.device, trained.ppo.precision = "cuda:7", "bf16"
    trained.experiment.output_dir, trained.rollout.device = "/nowhere/at/all", "cuda:7"
    found = config_of(checkpoint_of(trained))
    assert (found.experiment.device, found.ppo.precision) == ("cpu", "fp32")
    assert found.experiment.output_dir == "/nowhere/at/all", "what is not used need not be there"
    assert found.rollout.device == "cpu" or torch.cuda.is_available()


def test_what_a_training_showed_and_recorded_is_not_shown_again() -> None:
    trained = loaded("env=isaac_ant", "rollout.device=cpu")
    needed = {"enable_cameras": True, "kit_args": "--ext-folder=/a", "rendering_mode": "quality"}
    shown = {"headless": True, "video": True, "video_length": 9, "video_interval": 5}
    shown |= {"livestream": 2, "visualizer": "newton", "anim_recording_enabled": True}
    trained.env.launcher = {**needed, **shown}
    assert config_of(checkpoint_of(trained)).env.launcher == needed


def counting(end: int) -> Checkpoint:
    """A policy for an env whose step t is rewarded with t, and which lasts `end` <= 4 steps."""
    env = {"id": f"{PREFIX}Counter-v0", "kwargs": {"end": end}}
    config = run_config(env=env)
    spec = env_spec(2, {"policy": ((2,), "float32")}, discrete(2))
    learner = PPO(config, spec, torch.device("cpu"))
    return checkpoint_of(config, dict(learner.state_dict()))


@pytest.mark.parametrize(
    ("end", "total", "length"), [(3, 6.0, 3.0), (4, 10.0, 4.0), (9, 10.0, 4.0)]
)
@pytest.mark.parametrize("episodes", [1, 5, 40])
def test_whole_episodes_are_counted(end: int, total: int, length: int, episodes: int) -> None:
    result = evaluate(counting(end), episodes, seed=0)
    assert result["episodes"] == episodes
    assert (result["mean_return"], result["std_return"]) == (total, 0.0)
    assert (result["mean_length"], result["std_length"]) == (length, 0.0)
    assert (result["iteration"], result["checkpoint"]) == (9, "some/model_9.safetensors")


def test_a_return_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counter.step

    def step(self: Counter, action: int) -> Any:
        obs, _, *rest = counted(self, action)
        return obs, float("nan"), *rest

    monkeypatch.setattr(Counter, "step", step)
    says = r"^2 of 2 episodes have a return of nan: .* NaN or Inf; appo check says where"
    with pytest.raises(InvalidNumberError, match=says):
        evaluate(counting(3), 2, seed=0)


def test_no_episodes_and_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="--episodes=0: must be at least 1"):
        evaluate(counting(3), 0, seed=0)
    checkpoint = counting(3)
    checkpoint.tensors["policy.actor.0.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"actor\.0\.bias is \(3,\) of .*, expected \(16,"):
        evaluate(checkpoint, 1, seed=0)


# ------------------------------------------------------------------ what is evaluated


def test_latest_and_best_look_where_resume_does(tmp_path: Path) -> None:
    write(tmp_path / "logs/a/2026-01-01_00-00-00/checkpoints", 3, 5.0)
    write(tmp_path / "logs/b/2026-01-02_00-00-00/checkpoints", 4, 1.0)
    write(tmp_path / "logs/a/2026-01-01_00-00-01/checkpoints", 2, 4.0)
    output_dir = f"experiment.output_dir={tmp_path}/logs"

    def iteration(what: str, *settings: str) -> int:
        found = find(what, [output_dir, *settings])
        assert found.notes == []
        assert found.why.startswith(f"{what}: ") == (what in ("latest", "best"))
        return found.checkpoint.meta["iteration"]

    assert iteration("latest") == 4
    assert iteration("latest", "experiment.name=a") == 2
    assert iteration("best") == 3
    assert iteration("best", "experiment.name=b") == 4
    assert iteration(str(tmp_path / "logs/a/2026-01-01_00-00-00")) == 3


def test_an_env_on_the_command_line_is_part_of_what_latest_and_best_ask(tmp_path: Path) -> None:
    write(tmp_path / "a/2026-01-01_00-00-00/checkpoints", 1, 5.0, env_id="A-v0")
    write(tmp_path / "a/2026-01-02_00-00-00/checkpoints", 2, 4.0, env_id="A-v0")
    write(tmp_path / "b/2026-01-03_00-00-00/checkpoints", 3, 9.0, env_id="B-v0")

    def iteration(*words: str, env: str = "") -> int:
        settings = [*words[1:], f"experiment.output_dir={tmp_path}"]
        return find(words[0], settings, "eval", task_asked([env])).checkpoint.meta["iteration"]

    assert (iteration("latest"), iteration("latest", env="env.id=A-v0")) == (3, 2)
    assert iteration("best", env="env.id='A-v0'") == 1
    assert iteration("run=latest", "checkpoint=best", env="env.id=A-v0") == 2
    assert iteration("latest", env="env.id=Harder-v0") == 3, "another env to play in"
    with pytest.raises(CheckpointError, match="of several tasks"):
        iteration("best")
    assert iteration("best", "experiment.name=a") == 1


def test_what_cannot_be_found_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    for what, error, says in [
        ("nosuch", CheckpointError, "appo eval nosuch: no such file or directory"),
        (str(tmp_path / "empty"), CheckpointError, "empty: no checkpoint that loads; none there"),
        ("latest", CheckpointError, f"appo eval latest: no checkpoint that loads under {tmp_path}"),
        ("~nobody_of_that_name/x", ConfigError, "appo eval=~nobody_of_that_name/x: not a path"),
        ("a\0b", ConfigError, "appo eval"),
        ("x" * 5000, ConfigError, "longer than a path may be"),
        ("", ConfigError, "appo eval: empty"),
    ]:
        with pytest.raises(error) as caught:
            find(what, [f"experiment.output_dir={tmp_path}"])
        message = str(caught.value)
        assert says in message and "\n" not in message and len(message) < 400


@pytest.mark.parametrize("setting", ["ppo.lr=1", "experiment.nam=x", "experiment.name=", "what"])
def test_other_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"^{setting}: not a setting of appo eval"):
        find("latest", [setting])


@pytest.mark.parametrize(
    "token", ["env.kwargs.a={", "ppo.lr=[1", "env.kwargs.a=b=c", "ppo.lr=1,2", "~ppo.lr"]
)
def test_what_sets_no_value_is_refused_by_its_token(token: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(token)}: KEY=VALUE is expected here"):
        with_overrides(run_config(), ["ppo.gamma=0.9", token])


def test_run_and_checkpoint_name_it_as_well(tmp_path: Path) -> None:
    first, second = (tmp_path / f"logs/a/2026-01-0{day}_00-00-00" for day in (1, 2))
    for run, iteration, trained in ((first, 3, 5.0), (first, 4, 2.0), (second, 1, 3.0)):
        write(run / "checkpoints", iteration, trained)
    write(second / "checkpoints", 2, 1.0)

    def iteration(*words: str) -> tuple[str, int]:
        output_dir = f"experiment.output_dir={tmp_path}/logs"
        checkpoint = find(words[0], [*words[1:], output_dir]).checkpoint
        return checkpoint.path.parent.parent.name[9:10], checkpoint.meta["iteration"]

    assert iteration(f"run={first}") == ("1", 4)
    assert iteration(f"run={first}", "checkpoint=best") == ("1", 3)
    assert iteration(str(first), "checkpoint=model_3.safetensors") == ("1", 3)
    assert iteration("run=latest", "checkpoint=best") == ("2", 1)
    assert iteration("latest", "checkpoint=latest") == ("2", 2)
    assert iteration("checkpoint=best") == ("1", 3)
    assert iteration(f"checkpoint={second}/checkpoints/model_1.safetensors") == ("2", 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "appo play: name a run directory, a checkpoint file, latest or best"),
        (["run=nosuch", "checkpoint=best"], "appo play nosuch: no such run directory"),
        (["run=latest", "checkpoint=best"], "appo play latest: there is no run under"),
        (["a", "run=b"], "run=b: a is named already"),
        (["run="], "run=: not a setting"),
        (["run=.", "checkpoint=best"], "checkpoint=best: no checkpoint that loads"),
        (["run=.", "checkpoint=9"], "checkpoint=9: no such file or directory"),
    ],
)
def test_names_of_nothing(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        find(words[0] if words else None, words[1:], "play")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_policy_of_another_env_is_refused_in_one_line() -> None:
    checkpoint = counting(3)
    config = with_overrides(config_of(checkpoint), [f"env.id={PREFIX}Groups-v0"])
    with pytest.raises(CheckpointError) as caught:
        evaluate(checkpoint, 1, seed=0, config=config)
    message = str(caught.value)
    assert message.startswith("some/model_9.safetensors: of another environment: obs is ")
    assert "\n" not in message


@pytest.mark.parametrize("number", [0, -1])
def test_no_envs_are_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"--num_envs={number}: must be at least 1"):
        evaluate(counting(3), 1, seed=0, num_envs=number)


def test_an_env_that_cannot_render_is_refused_before_it_plays(tmp_path: Path) -> None:
    says = "UnitTestCounter-v0: its constructor takes no render_mode"
    with pytest.raises(RenderError, match=says):
        evaluate(counting(3), 1, seed=0, video=tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_video_lies_in_its_run_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = counting(3)
    assert video_path(checkpoint, 4) == tmp_path / "videos/play_9_seed4.mp4"
    inside = replace(checkpoint, path=Path("/logs/run/checkpoints/model_9.safetensors"))
    assert video_path(inside, 4) == Path("/logs/run/videos/play_9_seed4.mp4")
