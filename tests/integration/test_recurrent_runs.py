"""Whole runs of policies with memory: the same bits in one process and two, and after a resume."""

import numpy as np
import pytest
import torch
from test_determinism import Train, assert_bit_identical

from isaac_hydra_ext import load_policy
from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.errors import CheckpointError
from isaac_hydra_ext.rollout.remembered import POLICY, from_json, to_json

SMALL = ("policy.recurrent.hidden=16", "policy.hidden_dims=[16]", "ppo.num_mini_batches=2")


@pytest.mark.parametrize(("kind", "lag", "burn_in"), [("lstm", 0, 0), ("gru", 1, 5)])
def test_no_worker_and_one_worker_learn_the_same(
    train_run: Train, kind: str, lag: int, burn_in: int
) -> None:
    common = (
        *SMALL, "env=gym_cartpole", f"policy.recurrent.kind={kind}", "experiment.seed=7",
        f"rollout.max_policy_lag={lag}", "rollout.deterministic=true",
        f"rollout.burn_in={burn_in}",
        "experiment.max_iterations=3",
    )  # fmt: skip
    in_process = train_run(*common, "rollout.num_workers=0")
    one_worker = train_run(*common, "rollout.num_workers=1")
    assert_bit_identical(in_process, one_worker)


@pytest.mark.parametrize(("kind", "burn_in"), [("lstm", 0), ("gru", 16), ("lstm", 3)])
def test_n_plus_n_equals_2n_to_the_last_bit(train_run: Train, kind: str, burn_in: int) -> None:
    # Episodes of 200 steps over 2 x 4 rollouts of 16: all run across the restart.
    common = [
        *SMALL, f"policy.recurrent.kind={kind}", "rollout.num_workers=0",
        "rollout.max_policy_lag=0", "experiment.max_iterations=8",
        "rollout.deterministic=true", f"rollout.burn_in={burn_in}",
    ]  # fmt: skip
    whole = train_run(*common, "checkpoint.every=4")
    first = whole.path.with_name("model_4.safetensors")
    assert POLICY in load_checkpoint(first).meta["env_states"][0]
    resumed = train_run(*common, f"resume={first}")
    assert_bit_identical(whole, resumed)
    assert resumed.meta["env_states"] == whole.meta["env_states"]
    train_run(*common, "rollout.burn_in=2", f"resume={first}")  # what is saved is of other steps


def test_a_checkpoint_with_another_memory_is_refused(train_run: Train) -> None:
    saved = train_run(
        *SMALL, "policy.recurrent.kind=gru", "rollout.num_workers=0", "experiment.max_iterations=1"
    )
    for other in ("policy.recurrent.kind=lstm", "policy.recurrent.kind=null"):
        with pytest.raises(CheckpointError) as refused:
            train_run(*SMALL, other, "rollout.num_workers=0", f"resume={saved.path}")
        assert len(str(refused.value).splitlines()) == 1


def test_a_loaded_policy_remembers_each_env_until_its_episode_ends(train_run: Train) -> None:
    saved = train_run(
        *SMALL, "policy.recurrent.kind=gru", "rollout.num_workers=0", "experiment.max_iterations=1"
    )
    policy = load_policy(saved.path)
    obs = np.array([[1.0, 0.0, 0.5], [0.6, 0.8, -2.0]], np.float32)
    first, second = policy(obs), policy(obs)
    assert (first != second).all(), "the same observation, and another memory"
    policy.reset(np.array([True, False]))
    third = policy(obs)
    assert third[0] == first[0] and third[1] != first[1]
    policy.reset()
    assert np.array_equal(policy(obs), first)


def test_what_is_remembered_is_saved_to_the_last_bit() -> None:
    state = {"actor_h": torch.randn(3, 2, 5), "actor_c": torch.randn(3, 2, 5)}
    found = from_json(to_json(state), {name: torch.zeros_like(x) for name, x in state.items()})
    assert all(torch.equal(found[name], x) for name, x in state.items())
    with pytest.raises(CheckpointError, match="actor_h"):
        from_json(to_json(state), {"actor_h": torch.zeros(3, 2, 6)})
