"""A resumed run goes on where the first one stopped."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from test_determinism import Train, assert_bit_identical

from isaac_hydra_ext import appo_runner
from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint
from isaac_hydra_ext.envs.gym import GymVecEnv
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.ppo import PPO


@pytest.mark.parametrize("env", ["gym_pendulum", "gym_cartpole"])
def test_n_plus_n_equals_2n_to_the_last_bit(
    train_run: Train, command: Callable[..., subprocess.CompletedProcess[str]], env: str
) -> None:
    # Episodes of 200 steps over 2 x 5 rollouts of 16: some run across the restart, some end.
    common = [f"env={env}", "rollout.num_workers=1", "rollout.max_policy_lag=0"]
    whole = train_run(*common, "experiment.max_iterations=10", "checkpoint.every=5")
    first = whole.path.with_name("model_5.safetensors")
    tiny = ["rollout.envs_per_worker=4", "rollout.steps_per_env=16"]
    done = command(*tiny, *common, "experiment.max_iterations=10", f"resume={first}")
    assert done.returncode == 0, done.stderr
    resumed = Path(done.stdout.split("checkpoint: ")[-1].splitlines()[0])
    second = load_checkpoint(resumed)
    assert_bit_identical(whole, second)
    assert second.meta["episodes"] == whole.meta["episodes"]
    assert second.meta["env_states"] == whole.meta["env_states"]
    assert second.meta["totals"]["env_steps"] == whole.meta["totals"]["env_steps"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_checkpoint_may_be_deleted_once_it_is_loaded(
    train_run: Train, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    common = [f"rollout.num_workers={workers}", "rollout.max_policy_lag=0", "checkpoint.every=1"]
    first = train_run(*common, "experiment.max_iterations=2")
    kept = first.path.with_name("model_1.safetensors")
    find = appo_runner.find_resumed

    def found_then_deleted(*arguments: Any) -> Checkpoint | None:
        found = find(*arguments)
        if found is not None:
            found.path.unlink()
        return found

    monkeypatch.setattr(appo_runner, "find_resumed", found_then_deleted)
    again = train_run(*common, "experiment.max_iterations=2", f"resume={kept}")
    assert not kept.exists()
    assert again.meta["env_states"] == first.meta["env_states"], "the episodes went on"
    assert_bit_identical(first, again)


def test_an_async_run_loads_all_learner_state(train_run: Train) -> None:
    saved = train_run("experiment.max_iterations=3", "rollout.num_workers=1")
    config = load_run_config(saved.meta["config"])
    learner = PPO(config, GymVecEnv(config.env, 4).spec, torch.device("cpu"))
    learner.load_state_dict(saved.tensors)
    state = learner.state_dict()
    assert {"optimizer.exp_avg", "optimizer.exp_avg_sq", "optimizer.step", "lr"} < state.keys()
    for name, tensor in saved.tensors.items():
        assert torch.equal(state[name].cpu(), tensor), name


def test_envs_without_state_start_anew_and_the_log_says_so(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    line = ["env=gym_any", "env.id=Acrobot-v1", "rollout.num_workers=1", "rollout.steps_per_env=8"]
    first = command(*line, "experiment.max_iterations=2")
    assert first.returncode == 0, first.stderr
    second = command(*line, "experiment.max_iterations=4", "resume=latest")
    assert second.returncode == 0, second.stderr
    assert "all episodes start anew" in second.stdout
    runs = sorted((tmp_path / "logs" / "acrobot-v1").iterdir())
    meant = runs[0] / "checkpoints" / "model_2.safetensors"
    assert f"latest: {runs[0]}, the newest run of Acrobot-v1 under " in second.stdout
    assert OmegaConf.load(runs[1] / "params" / "agent.yaml").resume == str(meant)
    summary = json.loads((runs[-1] / "summary.json").read_text())
    assert summary["iterations"] == 4
    assert summary["env_steps"] == summary["samples_consumed"] == 4 * 8 * 32


def test_nothing_left_to_do_is_said(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    line = ["rollout.num_workers=0", "experiment.max_iterations=1"]
    assert command(*line).returncode == 0
    again = command(*line, "resume=latest")
    assert again.returncode == 2
    assert "raise experiment.max_iterations" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_a_checkpoint_of_another_env_or_network_is_refused_or_taken_in_part(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    tiny = ["rollout.num_workers=0", "rollout.envs_per_worker=4", "rollout.steps_per_env=16"]
    first = command(*tiny, "experiment.max_iterations=2", "checkpoint.every=1")
    assert first.returncode == 0, first.stderr
    resume = (
        f"resume={tmp_path}/logs/pendulum-v1/{first.stdout.split('pendulum-v1/')[1].split()[0]}"
    )

    other_env = command(
        *tiny, "env=gym_cartpole", "experiment.max_iterations=3", resume, "rollout.num_workers=1"
    )
    assert other_env.returncode == 1
    (line,) = other_env.stderr.strip().splitlines()
    assert "model_2.safetensors: of another environment: obs is {'policy': {'shape': [3]" in line
    assert "here {'policy': {'shape': [4]" in line

    wider = ["policy.hidden_dims=[64,32]", "experiment.max_iterations=3", resume]
    refused = command(*tiny, *wider)
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert "policy.actor.2.weight is (64, 64), expected (32, 64) (and " in line

    taken = command(*tiny, "--partial", *wider)
    assert taken.returncode == 0, taken.stderr
    lines = taken.stderr.strip().splitlines()
    assert lines and all(line.startswith("not taken from ") for line in lines)
    assert any("policy.actor.2.weight" in line for line in lines)
    assert not any("policy.actor.0.weight" in line for line in lines)
    assert "all episodes start anew" in taken.stdout

    best = command(*tiny, "experiment.max_iterations=9", "resume=best")
    assert best.returncode == 1 and "no checkpoint that loads" in best.stderr  # no episode ended


def test_another_schedule_begins_with_the_learning_rate_that_is_set(train_run: Train) -> None:
    saved = train_run("experiment.max_iterations=4", "ppo.lr_schedule=linear", "ppo.lr=1e-3")
    assert saved.tensors["lr"].item() == pytest.approx(0.25e-3)
    line = ["experiment.max_iterations=5", "ppo.lr=1e-3", f"resume={saved.path}"]
    resumed = train_run(*line, "ppo.lr_schedule=fixed")
    assert resumed.meta["iteration"] == 5
    assert resumed.tensors["lr"].item() == pytest.approx(1e-3)


def test_the_record_that_hydra_knows_gives_the_same_run_again(
    train_run: Train, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    first = train_run(
        "env=gym_cartpole", "experiment.max_iterations=2", "experiment.seed=-1", "ppo.lr=1e-3",
        "rollout.num_workers=0", "rollout.deterministic=true",
    )  # fmt: skip
    record = first.path.parents[1] / ".hydra"
    typed = ("experiment.run_name=again", "logging.console=plain")
    done = command(*typed, "--config-dir", str(record), "--config-name", "config")
    assert done.returncode == 0, done.stderr
    again = load_checkpoint(Path(done.stdout.split("checkpoint: ")[-1].splitlines()[0]))
    assert_bit_identical(first, again)
    ours, theirs = first.meta["config"], again.meta["config"]
    of_the_place = (
        ("experiment", "run_name"),
        ("experiment", "output_dir"),
        ("logging", "console"),
    )
    for section, key in of_the_place:
        del ours[section][key], theirs[section][key]
    assert ours == theirs
