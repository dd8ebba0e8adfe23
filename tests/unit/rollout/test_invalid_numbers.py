"""Where a rollout's numbers went wrong, and what is kept of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.rollout import invalid_numbers
from isaac_hydra_ext.rollout.invalid_numbers import (
    MAX_DUMPS,
    InvalidNumber,
    find_invalid,
    write_dump,
)
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import continuous, discrete, env_spec

NAN, INF = float("nan"), float("inf")
T, B = 6, 4
OBS = {"policy": ((2, 2), "float32"), "image": ((1,), "uint8"), "depth": ((), "float64")}
SPEC = env_spec(B, OBS, continuous((-1, 1), (-1, 1)))
READ = {"policy", "image", "depth"}


def good_slot(spec: EnvSpec = SPEC) -> Slot:
    """Every number is another one: t * 100 + env * 10 + element."""
    dtype = torch.float32 if spec.action.kind == "continuous" else torch.int64
    slot = Slot.allocate(SlotLayout(spec, T, dtype), "cpu")
    fields = (slot.action_TBA, slot.reward_TB, slot.behavior_log_prob_TB, *slot.obs.values())
    for x in fields:
        t, b = torch.meshgrid(torch.arange(len(x)), torch.arange(B), indexing="ij")
        x.copy_((t * 100 + b * 10).view(len(x), B, *[1] * (x.dim() - 2)).expand_as(x))
        x += torch.arange(x[0, 0].numel()).view(x[0, 0].shape).to(x.dtype)
    for x in slot.final_obs.values():
        x.fill_(0)
    slot.terminated_TB.fill_(False)
    slot.truncated_TB.fill_(False)
    slot.header["final_count"] = 0
    return slot


def first(slot: Slot, steps: int = T, groups: set[str] = READ) -> InvalidNumber:
    assert not slot.is_finite(groups, steps)
    (found,) = find_invalid(slot, groups, steps)
    return found


# ------------------------------------------------------------------ finding


def test_a_good_rollout_is_valid() -> None:
    assert good_slot().is_finite(READ, T)
    assert find_invalid(good_slot(), READ, T) == []


def floats(slot: Slot) -> dict[str, torch.Tensor]:
    """The fields by key; image is of integers."""
    obs = {f"obs/{group}": slot.obs[group] for group in ("policy", "depth")}
    step = {"action": slot.action_TBA, "action log-prob": slot.behavior_log_prob_TB}
    return {**obs, **step, "reward": slot.reward_TB}


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("key", floats(good_slot()))
def test_every_number_is_looked_at_and_named(key: str, value: float) -> None:
    steps, _, *entry = floats(good_slot())[key].shape
    for t in range(steps):
        slot = good_slot()
        floats(slot)[key][t, 2].view(-1)[-1] = value
        last = torch.Size(entry).numel() - 1
        assert str(first(slot)) == f"env 2, step {t}: {key}[{last}] is {value}"


def test_a_final_observation_is_named_by_its_step_and_env() -> None:
    slot = good_slot()
    assert slot.final_index_C2 is not None
    slot.final_index_C2[:2] = torch.tensor([[1, 3], [4, 0]])
    slot.final_obs["policy"][:2, 0, 1] = torch.tensor([0.0, NAN])
    slot.final_obs["policy"][2:] = NAN  # beyond the count nothing is read
    assert slot.is_finite(READ, T)
    slot.header["final_count"] = 2
    assert str(first(slot)) == "env 0, step 4: final_obs/policy[1] is nan"


def test_the_first_in_time_is_named_and_within_a_step_the_cause() -> None:
    slot = good_slot()
    # What follows a NaN observation at step 3, and a reward that was Inf a step before.
    slot.obs["policy"][3:, 1] = NAN
    slot.action_TBA[3:, 1] = NAN
    slot.reward_TB[2, 0] = INF
    slot.reward_TB[3:, 1] = NAN
    found = find_invalid(slot, READ, T)
    assert [str(number) for number in found] == [
        "env 0, step 2: reward[0] is inf",
        "env 1, step 3: obs/policy[0] is nan",
    ]


def test_groups_that_no_network_reads_may_hold_what_they_like() -> None:
    slot = good_slot()
    slot.obs["depth"].fill_(INF)  # nothing was hit
    assert slot.is_finite({"policy"}, T)
    assert find_invalid(slot, {"policy"}, T) == []


def test_large_numbers_are_valid_where_only_their_sum_is_not() -> None:
    slot = good_slot()
    slot.reward_TB.fill_(3e38)
    assert find_invalid(slot, READ, T) == []


def test_a_float64_that_float32_cannot_hold_is_invalid() -> None:
    slot = good_slot()
    slot.obs["depth"][1, 1] = 1e300
    assert str(first(slot)) == "env 1, step 1: obs/depth[0] is inf"


def test_an_unfinished_rollout_is_read_as_far_as_it_is_written() -> None:
    slot = good_slot()
    slot.obs["policy"][4:] = NAN
    slot.action_TBA[4:] = NAN
    slot.reward_TB[3:] = NAN
    assert slot.is_finite(READ, 3)  # observations 0..3, actions 0..3, rewards 0..2
    slot.action_TBA[3, 2, 1] = NAN
    assert str(first(slot, 3)) == "env 2, step 3: action[1] is nan"


def test_logits_that_are_not_numbers_show_in_the_log_prob_of_a_choice() -> None:
    slot = good_slot(env_spec(B, OBS, discrete(3)))
    slot.behavior_log_prob_TB[1, 2] = NAN
    assert str(first(slot)) == "env 2, step 1: action log-prob[0] is nan"


# ------------------------------------------------------------------ the dump

ABOUT = {"worker": 1, "generation": 2, "iteration": 7, "policy_version": 6}
WHERE = "worker_1_generation_2_rollout_7_env_3.safetensors"


def dumped(directory: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = directory / WHERE
    with safe_open(path, framework="pt") as f:
        return load_file(path), json.loads(f.metadata()["isaac_hydra_ext"])


def test_a_dump_holds_one_envs_steps_up_to_the_number(tmp_path: Path) -> None:
    slot = good_slot()
    number = InvalidNumber(3, 2, "reward", 0, NAN)
    slot.reward_TB[2, 3] = NAN
    slot.terminated_TB[1, 3] = True
    said = write_dump(tmp_path / "nan_dump", number, slot, None, T, ABOUT)
    assert str(tmp_path / "nan_dump" / WHERE) in said
    tensors, meta = dumped(tmp_path / "nan_dump")
    assert meta == {**ABOUT, "env": 3, "step": 2, "key": "reward", "element": 0, "value": "nan"}
    assert tensors["reward"][:2].tolist() == [30.0, 130.0] and tensors["reward"][2].isnan()
    assert torch.equal(tensors["obs/policy"], slot.obs["policy"][:4, 3])  # the one after, too
    assert torch.equal(tensors["obs/image"], slot.obs["image"][:4, 3])
    assert torch.equal(tensors["action"], slot.action_TBA[:3, 3])
    assert tensors["terminated"].tolist() == [False, True, False]
    assert tensors["truncated"].tolist() == [False] * 3


def test_a_dump_begins_with_the_rollout_before(tmp_path: Path) -> None:
    before, slot = good_slot(), good_slot()
    before.reward_TB -= 600
    write_dump(tmp_path, InvalidNumber(3, 1, "reward", 0, NAN), slot, before, T, ABOUT)
    tensors, _ = dumped(tmp_path)
    assert tensors["reward"].tolist() == [t * 100 + 30 - 600 for t in range(8)]
    assert tensors["action"].shape == (8, 2) and tensors["obs/policy"].shape == (9, 2, 2)


def test_a_dump_of_an_unfinished_rollout_ends_with_what_is_written(tmp_path: Path) -> None:
    write_dump(tmp_path, InvalidNumber(3, 2, "action", 0, NAN), good_slot(), None, 2, ABOUT)
    tensors, _ = dumped(tmp_path)
    assert tensors["reward"].shape == (2,) and tensors["obs/policy"].shape == (3, 2, 2)


def test_dumps_are_bounded_in_steps_bytes_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = InvalidNumber(3, 5, "reward", 0, NAN)
    monkeypatch.setattr(invalid_numbers, "MAX_DUMP_STEPS", 4)
    write_dump(tmp_path, number, good_slot(), good_slot(), T, ABOUT)
    tensors, _ = dumped(tmp_path)
    assert tensors["reward"].tolist() == [230.0, 330.0, 430.0, 530.0]
    assert torch.equal(tensors["obs/depth"], good_slot().obs["depth"][2:7, 3])
    monkeypatch.setattr(invalid_numbers, "MAX_DUMP_BYTES", 100)
    write_dump(tmp_path, number, good_slot(), good_slot(), T, ABOUT)
    assert dumped(tmp_path)[0]["reward"].shape == (2,)  # 39 bytes a step
    for n in range(MAX_DUMPS + 3):
        said = write_dump(tmp_path, number, good_slot(), None, T, {**ABOUT, "iteration": n})
    assert "not dumped" in said and str(tmp_path) in said
    assert len(list(tmp_path.iterdir())) == MAX_DUMPS


def test_a_dump_that_cannot_be_written_is_said_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    number = InvalidNumber(3, 5, "reward", 0, NAN)
    said = write_dump(tmp_path / "file" / "nan_dump", number, good_slot(), None, T, ABOUT)
    assert said.startswith("not dumped: ")
