"""What a collector does about numbers that are none, and with what envs log."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from isaac_hydra_ext.envs.contract import StepResult
from isaac_hydra_ext.errors import EnvContractError, InvalidNumberError
from isaac_hydra_ext.rollout import collector
from isaac_hydra_ext.rollout.collector import MAX_NOTES, Collector
from isaac_hydra_ext.rollout.invalid_numbers import MAX_DUMPS
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import env_spec, run_config

NAN = float("nan")
T, B = 6, 4


class Spoiling:
    """Observes its step; from `since` on, env 1's `where` is NaN until it is reset."""

    def __init__(self, where: str, since: int, alone: bool, raises: bool = False) -> None:
        self.spec = env_spec(B, {"policy": ((1,), "float32")}, has_state=True)
        self.where, self.since, self.alone, self.raises = where, since, alone, raises
        self.clock_B = torch.zeros(B)
        self.resets: list[Any] = []

    def observe(self) -> dict[str, torch.Tensor]:
        obs = self.clock_B.clone()
        if self.where == "obs" and self.clock_B[1] >= self.since:
            obs[1] = NAN
        return {"policy": obs.unsqueeze(1)}

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        self.resets.append(seed)
        self.clock_B.zero_()
        return self.observe()

    def reset_envs(self, envs: list[int]) -> dict[str, torch.Tensor] | None:
        if not self.alone:
            return None
        self.resets.append(envs)
        self.clock_B[envs] = 0
        return {group: obs[envs] for group, obs in self.observe().items()}

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        if self.raises and not torch.isfinite(actions_BA).all():
            raise ValueError("such an action is not possible")
        self.clock_B += 1
        reward = self.clock_B.clone()
        if self.where == "reward" and self.clock_B[1] >= self.since:
            reward[1] = NAN
        none = torch.zeros(B, dtype=torch.bool)
        return StepResult(self.observe(), reward, none, none.clone(), None, {})

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"clock": self.clock_B.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        raise AssertionError


class Rig:
    """A collector over `Spoiling` with as many slots as `lag` asks for."""

    def __init__(
        self, patch: pytest.MonkeyPatch, directory: Path, env: Spoiling, on_invalid: str
    ) -> None:
        patch.setattr(collector, "make_env", lambda config, seed, worker, run_dir: env)
        rollout = {"steps_per_env": T, "on_invalid": on_invalid, "num_workers": 1}
        self.env, self.directory = env, directory
        self.collector = Collector(run_config(B, rollout=rollout), 0, 0, directory)
        layout = SlotLayout(env.spec, T, torch.float32)
        self.slots = [Slot.allocate(layout, "cpu") for _ in range(2)]

    def collect(self, iteration: int) -> Slot:
        slot = self.slots[iteration % 2]
        self.collector.collect(slot, iteration, iteration, lambda steps: None, 0.0, True)
        return slot

    def dumps(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "nan_dump").glob("*"))


@pytest.mark.parametrize("on_invalid", ["stop", "restart_worker"])
@pytest.mark.parametrize(
    ("where", "found"), [("obs", "step 3: obs/policy[0]"), ("reward", "step 2: reward[0]")]
)
def test_a_number_that_is_none_is_an_error_with_its_place_and_a_dump(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, found: str, on_invalid: str
) -> None:
    rig = Rig(monkeypatch, tmp_path, Spoiling(where, T + 3, alone=True), on_invalid)
    rig.collect(0)
    assert rig.dumps() == []
    with pytest.raises(InvalidNumberError, match="rollout 1, env 1") as e:
        rig.collect(1)
    assert f"env 1, {found} is nan; its last steps are in {tmp_path}" in str(e.value)
    assert ("set rollout.on_invalid" in str(e.value)) == (on_invalid == "stop")
    (name,) = rig.dumps()
    rewards = load_file(tmp_path / "nan_dump" / name)["reward"]
    assert rewards[:T].tolist() == [1.0, 2, 3, 4, 5, 6]  # of the rollout before


@pytest.mark.parametrize("on_invalid", ["stop", "drop_env"])
def test_an_env_that_raises_on_such_an_action_is_not_blamed_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_invalid: str
) -> None:
    rig = Rig(monkeypatch, tmp_path, Spoiling("obs", 3, alone=True, raises=True), on_invalid)
    with pytest.raises(InvalidNumberError, match="env 1, step 3: obs/policy") as e:
        rig.collect(0)
    assert "then raised ValueError: such an action is not possible (" in str(e.value)
    assert re.search(r"test_collector\.py:\d+\)$", str(e.value)), "where it was raised"
    assert isinstance(e.value.__cause__, ValueError)
    assert len(rig.dumps()) == 1


def test_an_env_that_raises_for_its_own_reasons_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = Spoiling("", 0, alone=True)
    rig = Rig(monkeypatch, tmp_path, env, "stop")
    rig.slots[0].reward_TB.fill_(NAN)  # left from before
    monkeypatch.setattr(env, "step", lambda actions: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rig.collect(0)
    assert rig.dumps() == []


def test_a_dropped_env_is_marked_and_begins_anew_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rig = Rig(monkeypatch, tmp_path, Spoiling("obs", 3, alone=True), "drop_env")
    slot = rig.collect(0)
    assert slot.dropped_B.tolist() == slot.restarted_B.tolist() == [False, True, False, False]
    assert slot.dropped_samples == T
    assert rig.env.resets[1:] == [[1]]
    (note,) = slot.read_extra()["notes"]
    assert note.startswith("rollout 0, env 1, step 3: obs/policy[0] is nan; ")
    assert slot.read_extra()["env_state"] == {"clock": [6.0, 0.0, 6.0, 6.0]}  # after the reset
    assert slot.obs["policy"][T, :, 0].isnan().tolist() == [False, True, False, False]
    following = rig.collect(1)
    assert following.obs["policy"][0, :, 0].tolist() == [6.0, 0.0, 6.0, 6.0]
    assert following.dropped_B.any()  # it spoils itself again


def test_all_envs_begin_anew_where_one_cannot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rig = Rig(monkeypatch, tmp_path, Spoiling("reward", 3, alone=False), "drop_env")
    slot = rig.collect(0)
    assert slot.dropped_B.tolist() == [False, True, False, False]
    assert slot.restarted_B.all()
    following = rig.collect(1)
    assert following.obs["policy"][0, :, 0].tolist() == [0.0] * B
    seeds = rig.env.resets
    assert len(seeds) == 3 and len(set(seeds)) == 3  # other episodes each time


@pytest.mark.parametrize("dim", [0, 2, 3])
@pytest.mark.parametrize("where", ["obs", "final", "reset"])
def test_observations_of_a_wrong_length_are_named_with_their_group_whatever_the_env(
    where: str, dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Spoiling("reward", 2, alone=True)
    rig = Rig(monkeypatch, tmp_path, env, "drop_env")
    step, wrong = env.step, {"policy": torch.zeros(B, dim)}

    def spoiled(actions_BA: torch.Tensor) -> StepResult:
        result = step(actions_BA)
        if where == "obs":
            return replace(result, obs=wrong)
        return replace(result, truncated_B=~result.truncated_B, final_obs=wrong)

    if where == "reset":
        monkeypatch.setattr(env, "reset_envs", lambda envs: {"policy": torch.zeros(1, dim)})
    else:
        monkeypatch.setattr(env, "step", spoiled)
    rows = 1 if where == "reset" else B
    said = rf"^{'final ' if where == 'final' else ''}obs group 'policy': expected \[{rows}, 1\] "
    with pytest.raises(EnvContractError, match=rf"{said}float32, got \[{rows}, {dim}\] float32$"):
        rig.collect(0)


def test_what_an_env_logs_is_averaged_whatever_it_is_made_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env, step = Spoiling("", 0, alone=True), Spoiling.step
    logs = [
        {"tensor": torch.tensor(1.0), "one": torch.tensor([4]), "float": 1.0, "mixed": 1.0},
        {"tensor": torch.tensor(2.0), "two": torch.tensor([1.0, 2.0]), "mixed": torch.tensor(3)},
        *({} for _ in range(T - 2)),
    ]
    given = iter(logs)
    monkeypatch.setattr(env, "step", lambda a: replace(step(env, a), log=next(given)))
    log = Rig(monkeypatch, tmp_path, env, "stop").collect(0).read_extra()["log"]
    assert log == {"tensor": 1.5, "one": 4.0, "two": 1.5, "float": 1.0, "mixed": 2.0}


def test_notes_and_dumps_of_dropped_envs_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rig = Rig(monkeypatch, tmp_path, Spoiling("reward", 3, alone=True), "drop_env")
    notes = []
    for k in range(MAX_NOTES + 3):
        slot = rig.collect(k)
        notes.append(slot.read_extra()["notes"])
        assert slot.dropped_samples == T
    assert [len(n) for n in notes] == [1] * MAX_NOTES + [0] * 3
    assert "counted only" in notes[MAX_NOTES - 1][0]
    assert len(rig.dumps()) == MAX_DUMPS


# ------------------------------------------------------------------ a dead worker's place


class Schooling(Spoiling):
    """Its clock outlives its episodes, as a curriculum's does."""

    def __init__(self, whole: bool = False) -> None:
        super().__init__("", 0, alone=True)
        self.spec = replace(self.spec, whole_state=whole)

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        self.resets.append(seed)
        return self.observe()

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        self.clock_B = torch.tensor(state["clock"])
        return self.observe()


@pytest.fixture
def school(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Make the collector of a generation; its files are written whenever they may be."""
    monkeypatch.setattr("isaac_hydra_ext.rollout.handover.EVERY_S", 0.0)

    def make(generation: int, env: Schooling, state: Any = None, workers: int = 1) -> Collector:
        monkeypatch.setattr(collector, "make_env", lambda config, seed, worker, run_dir: env)
        rollout = {"steps_per_env": T, "num_workers": workers}
        return Collector(run_config(B, rollout=rollout), 0, generation, tmp_path, state)

    return make


def collected(made: Collector) -> None:
    slot = Slot.allocate(SlotLayout(made.env.spec, T, torch.float32), "cpu")
    made.collect(slot, 0, 0, lambda steps: None, 0.0, False)


def test_a_replacement_goes_on_with_what_outlives_episodes(school: Any) -> None:
    collected(school(0, Schooling()))
    env = Schooling()
    collected(school(1, env))
    assert env.clock_B.tolist() == [2.0 * T] * B and env.resets == []


def test_so_does_one_whose_predecessor_died_soon_after_a_resume(school: Any) -> None:
    school(0, Schooling(), state={"clock": [70.0] * B})
    env = Schooling()
    school(1, env)
    assert env.clock_B.tolist() == [70.0] * B


def test_episodes_of_a_dead_worker_are_over(school: Any, tmp_path: Path) -> None:
    collected(school(0, Schooling(whole=True)))
    env = Schooling(whole=True)
    school(1, env)
    assert env.clock_B.tolist() == [0.0] * B and len(env.resets) == 1
    assert not list(tmp_path.rglob("*handover*"))


def test_without_workers_nobody_is_replaced(school: Any, tmp_path: Path) -> None:
    collected(school(0, Schooling(), workers=0))
    assert not list(tmp_path.rglob("*handover*"))
