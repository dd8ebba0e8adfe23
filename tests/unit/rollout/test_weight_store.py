"""The ring of weight versions, through two stores over the same bytes."""

import numpy as np
import pytest
import torch

from isaac_hydra_ext.errors import WorkerError
from isaac_hydra_ext.rollout.weights import WeightStore, version_for

SIZE = 5


def both_sides(max_policy_lag: int) -> tuple[WeightStore, WeightStore]:
    memory = np.zeros(WeightStore.nbytes(SIZE, max_policy_lag), np.uint8)
    return tuple(WeightStore.map(memory, SIZE, max_policy_lag) for _ in range(2))  # type: ignore


def weights(version: int) -> torch.Tensor:
    return torch.arange(SIZE) + 100.0 * version


def loaded(store: WeightStore, version: int) -> torch.Tensor:
    flat = torch.full((SIZE,), float("nan"))
    store.load(version, flat)
    return flat


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_the_ring_keeps_exactly_the_last_versions(lag: int) -> None:
    learner, worker = both_sides(lag)
    for newest in range(8):
        learner.publish(newest, weights(newest))
        for version in range(newest + 1):
            if version >= newest - lag:
                assert torch.equal(loaded(worker, version), weights(version))
            else:
                with pytest.raises(WorkerError, match=f"version {version} are gone"):
                    loaded(worker, version)


def test_a_version_that_is_not_there_yet_is_refused() -> None:
    learner, worker = both_sides(1)
    learner.publish(0, weights(0))
    for version in (1, 2):
        with pytest.raises(WorkerError, match=f"version {version} are gone"):
            loaded(worker, version)


def test_nothing_can_be_loaded_before_the_first_publish() -> None:
    _, worker = both_sides(1)
    with pytest.raises(WorkerError):
        loaded(worker, 0)


def test_a_resumed_run_begins_at_any_version() -> None:
    learner, worker = both_sides(1)
    learner.publish(17, weights(17))
    assert torch.equal(loaded(worker, 17), weights(17))
    with pytest.raises(WorkerError):
        loaded(worker, 16)


def test_a_row_that_is_being_overwritten_is_refused() -> None:
    learner, worker = both_sides(0)
    learner.publish(4, weights(4))
    learner._versions[0, 0] = 6  # what `publish(5)` writes before the weights: versions plus one
    for version in (4, 5):
        with pytest.raises(WorkerError):
            loaded(worker, version)


def test_what_is_loaded_is_a_copy() -> None:
    learner, worker = both_sides(0)
    learner.publish(0, weights(0))
    flat = loaded(worker, 0)
    learner.publish(1, weights(1))
    assert torch.equal(flat, weights(0))


@pytest.mark.parametrize(
    ("oldest", "newest", "deterministic", "version"),
    [(4, 4, False, 4), (4, 5, False, 5), (4, 6, False, 5), (4, 6, True, 4), (5, 5, True, 5)],
)
def test_rollout_5_uses_no_version_of_a_later_iteration(
    oldest: int, newest: int, deterministic: bool, version: int
) -> None:
    assert version_for(5, oldest, newest, deterministic) == version
