"""Where the bytes of a rollout lie, and that a collector writes all of them."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.rollout.collector import Collector
from isaac_hydra_ext.rollout.layout import HEADER, PAGE, SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.workers.block import BlockPlan

from ..builders import continuous, discrete, env_spec, run_config

MIXED = {"a": ((3,), "float32"), "image": ((2, 5), "uint8"), "scalar": ((), "float64")}
SPECS = [
    env_spec(),
    env_spec(3, MIXED, continuous((0, 1), (0, 1), (0, 1)), has_state=True),
    env_spec(5, MIXED, discrete(2, 3), has_final_obs=False),
]
MAGIC = 0xAB


def layout_of(spec: EnvSpec, T: int = 7) -> SlotLayout:
    dtype = torch.float32 if spec.action.kind == "continuous" else torch.int64
    return SlotLayout(spec, T, dtype)


def tensors_of(slot: Slot) -> dict[str, torch.Tensor]:
    found = {k: v for k, v in vars(slot).items() if isinstance(v, torch.Tensor)}
    found |= {f"obs/{k}": v for k, v in slot.obs.items()}
    return found | {f"final_obs/{k}": v for k, v in slot.final_obs.items()}


def raw(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


@pytest.mark.parametrize("spec", SPECS)
def test_fields_do_not_overlap_and_are_aligned(spec: EnvSpec) -> None:
    layout = layout_of(spec)
    spans = [(0, HEADER.itemsize)]
    for field in layout.fields.values():
        assert field.nbytes == math.prod(field.shape) * field.dtype.itemsize
        assert field.offset % 64 == 0
        spans.append((field.offset, field.offset + field.nbytes))
    spans.sort()
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert spans[-1][1] <= layout.nbytes
    assert layout.nbytes % PAGE == 0


@pytest.mark.parametrize("spec", SPECS)
def test_mapped_and_allocated_slots_are_alike(spec: EnvSpec) -> None:
    layout = layout_of(spec)
    mapped = Slot.map(layout, np.zeros(layout.nbytes, np.uint8))
    allocated = Slot.allocate(layout, "cpu")
    if spec.has_final_obs:  # an allocated one has room for all only once it is asked for
        allocated.make_room(7 * spec.num_envs)
        for slot in (mapped, allocated):
            slot.final_index_C2 = slot.final_index_C2[:0]  # type: ignore[index]
            slot.final_obs = {group: rows[:0] for group, rows in slot.final_obs.items()}
    ours, theirs = tensors_of(mapped), tensors_of(allocated)
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.items()
    }
    assert mapped.header.dtype == allocated.header.dtype == HEADER
    assert (mapped.final_index_C2 is None) == (not spec.has_final_obs)


def test_shapes_are_time_major_with_one_more_observation_and_room_for_every_final_one() -> None:
    layout = layout_of(SPECS[1], T=7)
    slot = Slot.map(layout, np.zeros(layout.nbytes, np.uint8))
    assert slot.obs["image"].shape == (8, 3, 2, 5) and slot.obs["image"].dtype == torch.uint8
    assert slot.obs["scalar"].shape == (8, 3) and slot.obs["scalar"].dtype == torch.float64
    assert slot.action_TBA.shape == (7, 3, 3)
    assert slot.reward_TB.shape == slot.terminated_TB.shape == (7, 3)
    assert slot.final_index_C2 is not None and slot.final_index_C2.shape == (21, 2)
    assert slot.final_obs["image"].shape == (21, 2, 5)


def test_an_allocated_slot_takes_more_room_for_final_observations_as_they_come() -> None:
    slot = Slot.allocate(layout_of(SPECS[1], T=7), "cpu")
    assert slot.final_index_C2 is not None and slot.final_index_C2.shape == (3, 2)
    assert slot.final_obs["image"].shape == (3, 2, 5)
    for count in range(1, 22):
        slot.make_room(count)
        slot.final_index_C2[count - 1] = count
        slot.final_obs["image"][count - 1] = count
    slot.header["final_count"] = 21
    other = Slot.allocate(layout_of(SPECS[1], T=7), "cpu")
    other.make_room(21)
    other.copy_from(slot)
    for here in (slot, other):
        assert here.final_index_C2 is not None
        assert here.final_index_C2[:21, 0].tolist() == list(range(1, 22))
        assert here.final_obs["image"][:21, 1, 4].tolist() == list(range(1, 22))


def test_slots_status_and_weights_of_a_block_share_no_byte_and_leave_no_slot_out() -> None:
    layout, ring = layout_of(SPECS[1]), 1234
    plan = BlockPlan(layout, num_workers=3, slots_per_worker=2, weights_nbytes=ring)
    block = np.zeros(plan.nbytes, np.uint8)
    parts = [plan.status(block).view(np.uint8), plan.weights(block)]
    for worker in range(3):
        slots = plan.slots(block, worker)
        assert len(slots) == 2
        for slot in slots:
            parts += [slot.header.view(np.uint8), *(raw(t) for t in tensors_of(slot).values())]
    for part in parts:
        part += 1
    assert block.max() == 1
    assert block.sum() == sum(part.size for part in parts)
    assert plan.status(block).shape == (3,)
    assert plan.weights(block).size == ring


def test_each_slot_begins_on_a_page_of_its_own() -> None:
    plan = BlockPlan(layout_of(SPECS[0]), 2, 3, 99)
    block = np.zeros(plan.nbytes, np.uint8)
    start = block.ctypes.data
    offsets = [s.header.ctypes.data - start for w in range(2) for s in plan.slots(block, w)]
    assert all(offset % PAGE == 0 for offset in offsets)
    assert [b - a for a, b in pairwise(offsets)] == [plan.layout.nbytes] * 5


def test_what_is_pinned_is_what_a_rollout_always_fills_and_the_weights() -> None:
    spec = env_spec(num_envs=64, has_final_obs=True)
    layout = SlotLayout(spec, 50, torch.float32)
    plan = BlockPlan(layout, num_workers=3, slots_per_worker=2, weights_nbytes=1234)
    block = np.zeros(plan.nbytes, np.uint8)
    parts = plan.copied(block, [0, 2])
    for part in parts:
        part[:] = 1
    assert len(parts) == 5 and plan.weights(block).all()
    for worker in range(3):
        for slot in plan.slots(block, worker):
            dense = [*slot.obs.values(), slot.action_TBA, slot.behavior_log_prob_TB, slot.reward_TB]
            dense += [slot.terminated_TB, slot.truncated_TB]
            assert all((raw(tensor) == (worker != 1)).all() for tensor in dense)
            sparse = [slot.final_index_C2, *slot.final_obs.values(), slot.dropped_B]
            assert not any(raw(tensor).any() for tensor in sparse if tensor is not None)
    addresses = [(part.ctypes.data, part.ctypes.data + part.nbytes) for part in parts]
    first = block.ctypes.data
    pages = [((a - first) // PAGE, (b - 1 - first) // PAGE) for a, b in addresses]
    assert all(before[1] < after[0] for before, after in pairwise(sorted(pages)))


def test_extra_round_trip_and_a_shorter_one_after_a_longer() -> None:
    slot = Slot.allocate(layout_of(SPECS[0]), "cpu")
    for extra in ({"log": {"x": 1.5}, "env_state": [2**100, "ü"]}, {"log": {}}):
        slot.write_extra(extra)
        assert slot.read_extra() == extra


def test_an_extra_that_does_not_fit_is_left_out_and_named() -> None:
    slot = Slot.allocate(layout_of(SPECS[0]), "cpu")
    slot.write_extra({"log": {"x": 1.5}, "env_state": "s" * 200_000})
    extra = slot.read_extra()
    assert "env_state" not in extra
    assert extra["too_large"]["env_state"] == 200_002  # with its quotes


def test_an_extra_that_fits_is_kept_beside_one_that_does_not() -> None:
    slot = Slot.allocate(layout_of(SPECS[0]), "cpu")
    slot.write_extra({"log": {"x": 1.5}, "env_state": "s" * 200_000})
    assert slot.read_extra()["log"] == {"x": 1.5}


# ------------------------------------------------------------------ magic values


def collected(env_id: str, kwargs: dict[str, Any], T: int = 60) -> tuple[Slot, int]:
    """Collect a rollout into a slot full of magic bytes; returns it and its final count."""
    env = {"id": env_id, "kwargs": kwargs}
    config = run_config(3, env=env, rollout={"steps_per_env": T})
    collector = Collector(config, 0, 0, Path("."))
    dtype = collector.policy.distribution.action_dtype
    layout = SlotLayout(collector.env.spec, T, dtype)
    slot = Slot.map(layout, np.full(layout.nbytes, MAGIC, np.uint8))
    collector.collect(slot, 5, 4, lambda steps: None, 0.25, save_env_state=True)
    collector.env.close()
    return slot, int(slot.header["final_count"][0])


def magic_elements(tensor: torch.Tensor) -> int:
    """How many whole elements still hold nothing but magic bytes."""
    return int((raw(tensor).reshape(-1, tensor.dtype.itemsize) == MAGIC).all(axis=1).sum())


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [("Pendulum-v1", {"max_episode_steps": 7}), ("CartPole-v1", {"max_episode_steps": 20})],
)
def test_a_collector_writes_every_dense_element_and_the_first_final_rows_only(
    env_id: str, kwargs: dict[str, Any]
) -> None:
    slot, finals = collected(env_id, kwargs)
    dense = [*slot.obs.values(), slot.action_TBA, slot.behavior_log_prob_TB, slot.reward_TB]
    assert [magic_elements(t) for t in dense] == [0] * len(dense)
    for flags in (slot.terminated_TB, slot.truncated_TB):
        assert set(raw(flags).tolist()) <= {0, 1}
    assert torch.isfinite(slot.behavior_log_prob_TB).all()
    assert slot.final_index_C2 is not None
    assert finals > 0
    for sparse in (slot.final_index_C2, *slot.final_obs.values()):
        assert magic_elements(sparse[:finals]) == 0
        assert (raw(sparse[finals:]) == MAGIC).all()
    used = int(slot.header["extra_bytes"][0])
    assert (slot._extra[used:] == MAGIC).all()


def test_final_rows_are_those_of_the_cut_off_episodes_in_order_of_time() -> None:
    slot, finals = collected("CartPole-v1", {"max_episode_steps": 20})
    assert slot.terminated_TB.any()
    expected = (slot.truncated_TB & ~slot.terminated_TB).nonzero()
    assert slot.final_index_C2 is not None
    assert torch.equal(slot.final_index_C2[:finals], expected)
    # The last observation of an episode is not the first one of the next, which obs holds.
    after = slot.obs["policy"][expected[:, 0] + 1, expected[:, 1]]
    assert not (slot.final_obs["policy"][:finals] == after).all(dim=1).any()


def test_the_header_says_what_was_collected() -> None:
    slot, _ = collected("Pendulum-v1", {})
    header = slot.header[0]
    assert [int(header[k]) for k in ("iteration", "worker", "generation")] == [5, 0, 0]
    assert int(header["policy_version"]) == 4
    assert header["wait_s"] == 0.25 and header["collect_s"] > 0
    assert slot.read_extra()["env_state"] is not None


def test_a_rollout_collected_elsewhere_is_copied_whole() -> None:
    layout = SlotLayout(env_spec(num_envs=3, has_final_obs=True), 4, torch.float32)
    here, there = Slot.allocate(layout, "cpu"), Slot.allocate(layout, "cpu")
    for slot, value in ((here, 0.0), (there, 1.0)):
        for tensor in slot._tensors.values():
            tensor.fill_(value)
    there.write_extra({"log": {"a": 1.0}})
    there.header["iteration"], there.header["final_count"] = 9, 2
    here.copy_from(there)
    assert here.header == there.header and here.read_extra() == {"log": {"a": 1.0}}
    for name, tensor in here._tensors.items():
        if name != "extra":
            rows = 2 if name.startswith("final_") else tensor.shape[0]
            assert bool((tensor[:rows] == 1).all()) and not bool(tensor[rows:].any()), name
