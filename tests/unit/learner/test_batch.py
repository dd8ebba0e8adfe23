"""Slots of several workers become one batch, side by side and in worker order."""

import numpy as np
import torch

from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import discrete, env_spec

T, B = 3, 2
OBS = {"a": ((2,), "float32"), "image": ((1, 2), "uint8")}
SPEC = env_spec(B, OBS, discrete(4, 4))


def slot_of(worker: int, finals: tuple[tuple[int, int], ...], version: int) -> Slot:
    """Element i of every field is i + 100 * worker, with the field's own sign or size."""
    layout = SlotLayout(SPEC, T, torch.int64)
    slot = Slot.map(layout, np.zeros(layout.nbytes, np.uint8))

    def count(tensor: torch.Tensor) -> torch.Tensor:
        return torch.arange(tensor.numel()).view(tensor.shape) + 100 * worker

    for tensor in (*slot.obs.values(), slot.action_TBA, slot.reward_TB):
        tensor.copy_(count(tensor))
    slot.behavior_log_prob_TB.copy_(-count(slot.behavior_log_prob_TB))
    slot.terminated_TB[0, worker] = True
    for row, (t, b) in enumerate(finals):
        assert slot.final_index_C2 is not None
        slot.truncated_TB[t, b] = True
        slot.final_index_C2[row] = torch.tensor([t, b])
        slot.final_obs["a"][row] = 1000.0 * worker + 10 * t + b
        slot.final_obs["image"][row] = 10 * t + b
    slot.header["final_count"] = len(finals)
    slot.header["policy_version"] = version
    return slot


def loaded(*slots: Slot) -> RolloutBatch:
    batch = RolloutBatch(SPEC, len(slots), T, torch.int64, torch.device("cpu"))
    batch.load(list(slots))
    return batch


FIRST, SECOND = ((2, 1),), ((0, 0), (1, 1))


def test_columns_are_the_workers_envs_in_worker_order() -> None:
    batch = loaded(slot_of(0, FIRST, 7), slot_of(1, SECOND, 6))
    assert batch.reward_TN.tolist() == [
        [0.0, 1.0, 100.0, 101.0],
        [2.0, 3.0, 102.0, 103.0],
        [4.0, 5.0, 104.0, 105.0],
    ]
    assert torch.equal(batch.behavior_log_prob_TN, -batch.reward_TN)
    assert batch.action_TNA[1].tolist() == [[4, 5], [6, 7], [104, 105], [106, 107]]
    assert batch.obs["image"].shape == (T + 1, 4, 1, 2)
    assert batch.obs["image"].dtype == torch.uint8
    assert batch.terminated_TN.nonzero().tolist() == [[0, 0], [0, 3]]
    assert batch.truncated_TN.nonzero().tolist() == [[0, 2], [1, 3], [2, 1]]
    assert batch.policy_versions == [7, 6]


def ends(batch: RolloutBatch) -> list[list[int]]:
    """(t, n) of the steps that final observations belong to."""
    return [list(divmod(step, batch.reward_TN.shape[1])) for step in batch.final_step.tolist()]


def test_final_observations_move_to_their_workers_columns() -> None:
    batch = loaded(slot_of(0, FIRST, 0), slot_of(1, SECOND, 0))
    assert ends(batch) == [[2, 1], [0, 2], [1, 3]]
    assert batch.final_obs["a"].tolist() == [[21.0] * 2, [1000.0] * 2, [1011.0] * 2]
    assert batch.final_obs["image"].tolist() == [[[21, 21]], [[0, 0]], [[11, 11]]]


def test_final_observations_of_an_earlier_iteration_do_not_stay() -> None:
    batch = loaded(slot_of(0, FIRST, 0), slot_of(1, SECOND, 0))
    batch.load([slot_of(0, (), 1), slot_of(1, (), 1)])
    assert ends(batch) == []
    assert batch.final_obs["a"].shape == (0, 2)


def test_after_loading_the_slots_may_be_overwritten() -> None:
    slots = [slot_of(0, FIRST, 0), slot_of(1, SECOND, 0)]
    batch = loaded(*slots)
    expected = loaded(slot_of(0, FIRST, 0), slot_of(1, SECOND, 0))
    for slot in slots:
        assert slot.final_index_C2 is not None
        assert slot.final_index_C2[0].tolist() in ([2, 1], [0, 0])  # moved in a copy only
        for tensor in (*slot.obs.values(), *slot.final_obs.values(), slot.final_index_C2):
            tensor.fill_(9)
        for tensor in (slot.reward_TB, slot.action_TBA, slot.behavior_log_prob_TB):
            tensor.fill_(9)
        slot.truncated_TB.fill_(True)
    for name in ("reward_TN", "action_TNA", "truncated_TN", "final_step"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    for group in OBS:
        assert torch.equal(batch.obs[group], expected.obs[group])
        assert torch.equal(batch.final_obs[group], expected.final_obs[group])


def test_samples_are_time_major_and_leave_the_last_observation_out() -> None:
    batch = loaded(slot_of(0, (), 0), slot_of(1, (), 0))
    rows = batch.obs_N["a"]
    assert rows.shape == (T * 4, 2)
    assert rows[:4].tolist() == [[0, 1], [2, 3], [100, 101], [102, 103]]
    assert rows[4].tolist() == [4, 5]
    assert rows.data_ptr() == batch.obs["a"].data_ptr()  # a view: nothing is copied


def without(slot: Slot, *envs: int) -> Slot:
    slot.dropped_B[list(envs)] = True
    return slot


def test_an_env_that_was_left_out_has_no_column() -> None:
    first, second = slot_of(0, FIRST, 7), slot_of(1, SECOND, 6)
    whole = loaded(first, second)
    batch = loaded(without(first, 0), second)
    for name in ("reward_TN", "behavior_log_prob_TN", "action_TNA", "terminated_TN"):
        assert torch.equal(getattr(batch, name), getattr(whole, name)[:, 1:]), name
    assert batch.truncated_TN.nonzero().tolist() == [[0, 1], [1, 2], [2, 0]]
    for group in OBS:
        assert torch.equal(batch.obs[group], whole.obs[group][:, 1:])
        assert batch.obs_N[group].shape[0] == T * 3
    assert ends(batch) == [[2, 0], [0, 1], [1, 2]]
    assert torch.equal(batch.final_obs["a"], whole.final_obs["a"])


def test_final_observations_of_an_env_that_was_left_out_go_with_it() -> None:
    batch = loaded(slot_of(0, FIRST, 7), without(slot_of(1, SECOND, 6), 0))
    assert batch.reward_TN[0].tolist() == [0.0, 1.0, 101.0]
    assert ends(batch) == [[2, 1], [1, 2]]
    assert batch.final_obs["a"].tolist() == [[21.0] * 2, [1011.0] * 2]
    nothing = loaded(without(slot_of(0, FIRST, 7), 0, 1), without(slot_of(1, SECOND, 6), 0, 1))
    assert nothing.reward_TN.shape == (T, 0) and ends(nothing) == []


def test_the_columns_come_back_with_the_next_iteration() -> None:
    batch = RolloutBatch(SPEC, 2, T, torch.int64, torch.device("cpu"))
    batch.load([without(slot_of(0, FIRST, 0), 1), slot_of(1, SECOND, 0)])
    batch.load([slot_of(0, FIRST, 1), slot_of(1, SECOND, 1)])
    expected = loaded(slot_of(0, FIRST, 1), slot_of(1, SECOND, 1))
    assert torch.equal(batch.reward_TN, expected.reward_TN)
    assert batch.obs_N["a"].data_ptr() == batch.obs["a"].data_ptr()  # nothing is copied again
