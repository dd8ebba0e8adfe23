"""A rollout that crosses machines: copied as bytes, it is the same to those who know its fields."""

import json

import numpy as np
import pytest
import torch

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import WorkerError
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.workers.block import BlockPlan
from isaac_hydra_ext.workers.far_block import BlockNumbers, FarBlock

from ..builders import env_spec

P, ROWS, FINALS = 5, 2, 3
MIXED = {"a": ((3,), "float32"), "image": ((2, 5), "uint8")}


def plan_of(spec: EnvSpec) -> BlockPlan:
    layout = SlotLayout(spec, 4, torch.float32)
    return BlockPlan(layout, 2, ROWS, WeightStore.nbytes(P, ROWS - 1))


def far(plan: BlockPlan) -> tuple[np.ndarray, FarBlock]:
    """A machine's block; the numbers have travelled as JSON."""
    numbers = BlockNumbers.from_json(json.loads(json.dumps(plan.numbers(P).to_json())))
    memory = np.zeros(plan.nbytes, np.uint8)
    return memory, FarBlock(numbers, memory)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()


@pytest.mark.parametrize("finals", [True, False])
def test_a_rollout_arrives_whole_and_what_it_has_not_filled_does_not_travel(finals: bool) -> None:
    plan = plan_of(env_spec(3, MIXED, has_final_obs=finals))
    there, sender = far(plan)
    here, receiver = far(plan)
    filled = plan.memory_of(there, 1)
    filled[:] = np.random.default_rng(1).integers(0, 256, len(filled), np.uint8)
    slot = plan.slots(there, 1)[1]
    slot.header[0] = (7, 1, 2, 6, FINALS if finals else 0, 0, 0.5, 0.25)
    slot.write_extra({"log": {"x": 1.5}})
    parts = sender.rollout(1, 1)
    copied = receiver.write_rollout(1, 1, parts)
    mine = plan.slots(here, 1)[1]
    assert mine.header == slot.header
    assert mine.read_extra() == {"log": {"x": 1.5}}
    for name, tensor in slot._tensors.items():
        rows = FINALS if name.startswith("final_") else 0 if name == "extra" else len(tensor)
        assert raw(mine._tensors[name][:rows]) == raw(tensor[:rows]), name
        if name.startswith("final_"):
            assert not mine._tensors[name][rows:].any()
    assert copied == sum(part.nbytes for part in parts) < plan.layout.nbytes / 2
    assert not plan.memory_of(here, 0).any() and not plan.slots(here, 1)[0].header["iteration"]


def test_a_rollout_of_another_layout_is_refused_and_nothing_outside_of_its_slot_is_written() -> (
    None
):
    plan = plan_of(env_spec(3, MIXED))
    _, sender = far(plan_of(env_spec(4, MIXED)))
    here, receiver = far(plan)
    for worker, slot, parts in (
        (0, 0, sender.rollout(0, 0)),
        (0, 0, []),
        (0, 0, receiver.rollout(0, 0)[:-1]),
        (0, 2, receiver.rollout(0, 0)),
        (0, -1, receiver.rollout(0, 0)),
    ):
        with pytest.raises(WorkerError, match="worker 0"):
            receiver.write_rollout(worker, slot, parts)
    assert not here.any()


def test_a_header_that_lies_about_its_rows_reaches_no_further_than_they_may() -> None:
    plan = plan_of(env_spec(3, MIXED))
    memory, block = far(plan)
    plan.slots(memory, 0)[0].header[0] = (0, 0, 0, 0, 10**9, 10**9, 0.0, 0.0)
    parts = block.rollout(0, 0)
    assert sum(part.nbytes for part in parts) <= plan.layout.nbytes
    plan.slots(memory, 0)[0].header[0] = (0, 0, 0, 0, -5, -5, 0.0, 0.0)
    assert parts[-1].nbytes > block.rollout(0, 0)[-1].nbytes == 0


def test_weights_are_those_of_the_store_and_a_version_that_is_gone_is_none() -> None:
    plan = plan_of(env_spec(3, MIXED))
    here, receiver = far(plan)
    there, sender = far(plan)
    store = WeightStore.map(plan.weights(there), P, ROWS - 1)
    assert sender.weights(0) is None
    for version in range(3):
        store.publish(version, torch.full((P,), float(version)))
    assert sender.weights(0) is None
    flat = torch.empty(P)
    for version in (1, 2):
        receiver.write_weights(version, sender.weights(version))
        WeightStore.map(plan.weights(here), P, ROWS - 1).load(version, flat)
        assert torch.equal(flat, torch.full((P,), float(version)))


def test_a_workers_status_lies_where_the_pool_looks() -> None:
    plan = plan_of(env_spec(3, MIXED))
    memory, block = far(plan)
    block.status(1)[:] = (5, 6, 7)
    assert plan.status(memory)[1].tolist() == (5, 6, 7)
