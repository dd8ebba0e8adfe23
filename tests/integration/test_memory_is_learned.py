"""Tasks that need a memory are learned with one, and not without; the samples are the same."""

import json
from pathlib import Path

import pytest
from test_determinism import Train

pytestmark = pytest.mark.release
COMMON = (
    "env=gym_any", "env.imports=[memory_tasks]", "rollout.num_workers=0",
    "rollout.max_policy_lag=0", "ppo.num_mini_batches=4", "ppo.entropy_coef=0.0",
)  # fmt: skip
CARTPOLE = (  # 450 of 500 came after 84,000 of 164,000 samples
    "env.id=MaskedCartPole-v0", "rollout.envs_per_worker=16", "rollout.steps_per_env=128",
    "ppo.lr=1e-3", "ppo.lr_schedule=linear", "ppo.update_epochs=10", "policy.hidden_dims=[64]",
    "policy.normalize_values=true", "experiment.max_iterations=80",
)  # fmt: skip
TMAZE = (  # 0.95 came after 20,000 of 51,000 samples with an LSTM, after 33,000 with a GRU
    "env.id=TMaze-v0", "rollout.envs_per_worker=32", "rollout.steps_per_env=64", "ppo.lr=3e-3",
    "ppo.lr_schedule=fixed", "ppo.update_epochs=8", "ppo.value_clip=null",
    "policy.hidden_dims=[32]", "experiment.max_iterations=25",
)  # fmt: skip
MEMORY = ("policy.recurrent.kind=lstm", "policy.recurrent.hidden=64")


def summary_of(train_run: Train, *overrides: str) -> dict[str, float]:
    checkpoint = train_run(*COMMON, *overrides)
    return json.loads((Path(checkpoint.path).parents[1] / "summary.json").read_text())


def test_cartpole_without_velocities(train_run: Train) -> None:
    assert summary_of(train_run, *CARTPOLE, *MEMORY)["best_return"] >= 450
    assert summary_of(train_run, *CARTPOLE)["best_return"] < 200


def test_a_t_maze_of_length_20(train_run: Train) -> None:
    assert summary_of(train_run, *TMAZE, *MEMORY)["mean_return"] >= 0.95
    assert summary_of(train_run, *TMAZE)["mean_return"] < 0.7
