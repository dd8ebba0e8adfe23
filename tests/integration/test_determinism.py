"""The same seed gives the same weights, to the last bit, on the CPU."""

from collections.abc import Callable

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint

Train = Callable[..., Checkpoint]
SHORT = ("experiment.max_iterations=4", "experiment.seed=7")


def assert_bit_identical(a: Checkpoint, b: Checkpoint) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name]), name


@pytest.mark.parametrize("env", ["gym_pendulum", "gym_cartpole"])
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_no_worker_and_one_worker_learn_the_same(train_run: Train, env: str, lag: int) -> None:
    common = (*SHORT, f"env={env}", f"rollout.max_policy_lag={lag}", "rollout.deterministic=true")
    in_process = train_run(*common, "rollout.num_workers=0")
    one_worker = train_run(*common, "rollout.num_workers=1")
    assert_bit_identical(in_process, one_worker)


def test_synchronous_runs_need_no_deterministic_flag(train_run: Train) -> None:
    common = (*SHORT, "rollout.max_policy_lag=0")
    in_process = train_run(*common, "rollout.num_workers=0")
    one_worker = train_run(*common, "rollout.num_workers=1")
    assert_bit_identical(in_process, one_worker)


def test_two_workers_with_lag_repeat(train_run: Train) -> None:
    common = (*SHORT, "rollout.num_workers=2", "rollout.deterministic=true")
    first, second = train_run(*common), train_run(*common)
    assert_bit_identical(first, second)
    assert first.meta["totals"]["policy_lag_sum"] == 3.0  # 0 for rollout 0, then exactly 1 each


def test_another_seed_learns_something_else(train_run: Train) -> None:
    common = ("experiment.max_iterations=2", "rollout.num_workers=0", "rollout.max_policy_lag=0")
    one, two = (train_run(*common, f"experiment.seed={seed}") for seed in (1, 2))
    assert not torch.equal(
        one.tensors["policy.actor.0.weight"], two.tensors["policy.actor.0.weight"]
    )
