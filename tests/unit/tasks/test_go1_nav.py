"""The Go1 navigation task without a simulator: commands, progress, arrivals, levels, outcomes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, StepResult, TensorSpec
from isaac_hydra_ext.errors import CheckpointError, ConfigError
from isaac_hydra_ext.tasks.go1_nav import evaluate as evaluation
from isaac_hydra_ext.tasks.go1_nav.navigation import (
    ARRIVE_WITHIN,
    MIN_DISTANCE,
    OUTCOME,
    Navigation,
    draw_target,
    is_outside,
    progress_rate,
    touching_links,
    velocity_command,
)

STEP_DT = 0.02
NOBODY_FELL = torch.tensor([False])


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float32)


@pytest.mark.parametrize(
    ("position", "heading", "target", "expected"),
    [
        ((0, 0), 0.0, (3, 0), (0.8, 0.0, 0.0)),  # straight on
        ((0, 0), 0.0, (0, 2), (0.0, 0.8, math.pi / 4)),  # to the left: half of pi / 2
        ((1, 1), math.pi / 2, (4, 1), (0.0, -0.8, -math.pi / 4)),  # east of one that looks north
        ((0, 0), 0.0, (-4, 3), (-0.64, 0.48, 1.0)),  # behind: half of 2.5 is clipped
        ((0, 0), 0.0, (-4, -3), (-0.64, -0.48, -1.0)),
        ((2, 2), 0.0, (5, 6), (0.48, 0.64, 0.5 * math.atan2(4, 3))),  # 3-4-5
        ((0, 0), 3.0, (math.cos(3), -math.sin(3)), (0.8 * math.cos(6), -0.8 * math.sin(6),
                                                    0.5 * (2 * math.pi - 6))),  # across +-pi
        ((0, 0), 0.0, (0.0, 0.29), (0.0, 0.0, math.pi / 4)),  # within 0.3 m: it stands
        ((0, 0), 0.0, (0.31, 0.0), (0.8, 0.0, 0.0)),
    ],
)  # fmt: skip
def test_commands_worked_by_hand(
    position: tuple[float, float],
    heading: float,
    target: tuple[float, float],
    expected: tuple[float, float, float],
) -> None:
    command = velocity_command(row(*position), torch.tensor([heading]), row(*target))
    assert command.tolist()[0] == pytest.approx(expected, abs=1e-6)


def test_progress_is_metres_a_second_clipped_and_none_towards_a_new_target() -> None:
    before = torch.tensor([3.0, 3.0, 3.0, 3.0, torch.nan])
    now = torch.tensor([2.984, 3.004, 2.5, 3.5, 2.0])
    rate = progress_rate(before, now, STEP_DT)
    assert rate.tolist() == pytest.approx([0.8, -0.2, 1.0, -1.0, 0.0], abs=1e-4)


def test_a_target_is_two_metres_away_or_the_farthest() -> None:
    torch.manual_seed(0)
    patches = torch.tensor([[0.5, 0.0], [0.0, 1.9], [2.1, 0.0], [0.0, -3.0]])
    drawn = draw_target(torch.zeros(200, 2), patches.expand(200, 4, 2))
    far = {(2.1, 0.0), (0.0, -3.0)}
    assert {tuple(round(x, 3) for x in p) for p in drawn.tolist()} == far
    near = draw_target(torch.zeros(1, 2), patches[None, :2])
    assert near.tolist() == [[0.0, pytest.approx(1.9)]]


def test_links_touch_above_one_newton_at_any_time() -> None:
    force_BLK = torch.tensor([[[0.0, 1.0], [0.9, 0.2]], [[0.0, 1.1], [5.0, 5.0]]])
    assert touching_links(force_BLK).tolist() == [0.0, 2.0]


def test_the_end_of_the_ground_is_a_square() -> None:
    position = torch.tensor([[9.9, -9.9], [10.1, 0.0], [0.0, -10.1]])
    assert is_outside(position, 10.0).tolist() == [False, True, True]


class Walk:
    """One env of books, and a puppet that goes where the command says."""

    def __init__(self, *patches: tuple[float, float]) -> None:
        self.books = Navigation(1, STEP_DT, "cpu")
        self.patches = torch.tensor([patches])
        self.position, self.heading, self.steps = torch.zeros(1, 2), torch.zeros(1), 0
        self.start()

    def start(self) -> None:
        self.position = torch.zeros(1, 2)
        self.books.advance(self.position, self.heading, self.patches)

    def move(self, velocity: torch.Tensor, fell: bool = False) -> None:
        """Take a step; `velocity` is the world's."""
        self.position = self.position + velocity * STEP_DT
        self.steps += 1
        self.books.measure(self.steps, self.position, torch.tensor([fell]))

    def follow(self) -> None:
        forward, left, yaw_rate = self.books.command_B3[0]
        cos, sin = self.heading.cos(), self.heading.sin()
        self.heading = self.heading + yaw_rate * STEP_DT
        self.move(torch.stack([forward * cos - left * sin, forward * sin + left * cos], dim=1))

    def end(self, fell: bool = False) -> tuple[dict[str, float], float]:
        """Close the episode; returns its outcome and the success that is logged."""
        success = self.books.begin(torch.tensor([0]), torch.tensor([fell]))
        return dict(zip(OUTCOME, self.books.outcome_BK[0].tolist(), strict=True)), float(success)


def test_a_puppet_driven_along_the_command_reaches_target_after_target() -> None:
    torch.manual_seed(1)
    walk = Walk((3.0, 0.0), (0.0, 3.0), (-3.0, 0.0))
    arrivals, rates = 0, []
    for _ in range(700):
        new = bool(walk.books._distance_B.isnan())
        before = walk.books.target_B2.clone()
        walk.follow()
        rates.append(float(walk.books.progress_B))
        assert rates[-1] == 0.0 if new else rates[-1] == pytest.approx(0.8, abs=1e-3)
        if walk.books.arrived_B:
            arrivals += 1
            assert (before - walk.position).norm() < ARRIVE_WITHIN
        walk.books.advance(walk.position, walk.heading, walk.patches)
        if not walk.books.target_B2.equal(before):
            assert (walk.books.target_B2 - walk.position).norm() >= MIN_DISTANCE
    assert arrivals >= 3 and rates.count(0.0) == arrivals + 1
    outcome, success = walk.end()
    assert success == outcome["reached"] == 1 and outcome["fell"] == 0
    assert outcome["path"] == pytest.approx(outcome["straight"], rel=1e-3)
    assert outcome["straight"] == pytest.approx(2.5, abs=0.02)


def test_a_detour_is_longer_than_the_straight_line() -> None:
    walk = Walk((4.0, 0.0))
    for velocity in [(0.0, 1.0)] * 50 + [(1.0, 0.0)] * 200 + [(0.0, -1.0)] * 50:
        walk.move(row(*velocity))
        if walk.books.arrived_B:
            break
    outcome, _ = walk.end()
    x, y = walk.position[0].tolist()
    assert outcome["path"] == pytest.approx(walk.steps * STEP_DT, rel=1e-4)
    assert outcome["straight"] == pytest.approx(math.hypot(x, y), rel=1e-4)


def test_a_fall_at_the_target_is_no_success_and_one_behind_it_is() -> None:
    walk = Walk((2.0, 0.0))
    for _ in range(74):
        walk.move(row(1.0, 0.0))
    assert not walk.books.arrived_B
    walk.move(row(2.0, 0.0), fell=True)  # from 1.48 m to 1.52 m
    assert not walk.books.arrived_B
    outcome, success = walk.end(fell=True)
    assert success == outcome["reached"] == 0 and outcome["fell"] == 1
    walk.start()
    walk.move(row(80.0, 0.0))
    assert walk.books.arrived_B
    walk.books.advance(walk.position, walk.heading, walk.patches)
    walk.move(row(0.0, 0.0), fell=True)
    outcome, success = walk.end(fell=True)
    assert success == outcome["reached"] == outcome["fell"] == 1


@pytest.mark.parametrize(
    ("walked", "up", "down"), [(3.6, True, False), (2.1, False, False), (1.9, False, True)]
)
def test_levels_follow_what_was_closed_of_the_way(walked: float, up: bool, down: bool) -> None:
    walk = Walk((4.0, 0.0))
    walk.move(row(walked / STEP_DT, 0.0))
    moves = walk.books.level_moves(torch.tensor([0]))
    assert [bool(m) for m in moves] == [up, down]


def test_an_episode_without_a_step_moves_no_level() -> None:
    books = Navigation(1, STEP_DT, "cpu")
    envs = torch.tensor([0])
    books.measure(0, torch.zeros(1, 2), NOBODY_FELL)  # of the first reset: at no target's place
    assert not any(books.level_moves(envs)) and not books.arrived_B
    books.begin(envs, NOBODY_FELL)
    books.advance(torch.zeros(1, 2), torch.zeros(1), torch.tensor([[[4.0, 0.0]]]))
    books.measure(0, torch.zeros(1, 2), NOBODY_FELL)  # of the second one, at the same step
    assert not any(books.level_moves(envs))


def test_who_asks_twice_in_a_step_changes_nothing() -> None:
    walk = Walk((4.0, 0.0))
    walk.move(row(0.8, 0.0))
    walk.move(row(0.8, 0.0))
    walk.books.measure(walk.steps, walk.position, NOBODY_FELL)
    assert walk.books.progress_B.tolist() == [pytest.approx(0.8, abs=1e-3)]
    assert walk.end()[0]["path"] == pytest.approx(0.032)


def test_steps_under_inference_mode_mix_with_resets_outside() -> None:
    walk = Walk((4.0, 0.0))
    with torch.inference_mode():
        walk.follow()
        walk.books.advance(walk.position, walk.heading, walk.patches)
    walk.end()
    walk.start()


# ---------------------------------------------------------------- evaluation


class Episodes:
    """An env whose episode n in env b ends after `lengths[b][n]` steps, with a known outcome."""

    def __init__(self, lengths: list[list[int]]) -> None:
        self._left = [list(ends) for ends in lengths]
        self._clock = [0] * len(lengths)
        self.outcome = torch.zeros(len(lengths), len(OUTCOME))
        obs = {"actor": TensorSpec((1,), "float32"), "outcome": TensorSpec((4,), "float32")}
        action = ActionSpec("continuous", 1)
        self.spec = EnvSpec(len(lengths), obs, action, STEP_DT, 10, has_final_obs=False)

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        return {"actor": torch.zeros(len(self._clock), 1), "outcome": self.outcome.clone()}

    def step(self, actions: torch.Tensor) -> StepResult:
        done = torch.zeros(len(self._clock), dtype=torch.bool)
        for b, ends in enumerate(self._left):
            self._clock[b] += 1
            if ends and self._clock[b] == ends[0]:
                length, self._clock[b], done[b] = ends.pop(0), 0, True
                self.outcome[b] = torch.tensor([1.0, 0.0, 10.0 * b + length, 1.0])
        zeros = torch.zeros(len(done))
        return StepResult(self.reset(0), zeros, done, torch.zeros_like(done), None, {})


def test_every_env_plays_its_share_on_its_own_level() -> None:
    # Levels alternate: envs 0 and 2 share three episodes, so do 1 and 3.
    env: Any = Episodes([[1, 2, 3], [4, 4, 4], [5, 5], [1, 1, 1]])
    played = evaluation._play(env, lambda obs: torch.zeros(4, 1), 2, 3, 0)
    paths = [sorted(outcome[2] for outcome in level) for level in played]
    assert paths == [[1.0, 2.0, 25.0], [14.0, 14.0, 31.0]]


def test_outcomes_are_summarised() -> None:
    outcomes = np.array([[1, 0, 3.0, 2.0], [1, 1, 2.0, 2.0], [0, 1, 9.0, 1.0], [0, 0, 9.0, 1.0]])
    told = evaluation.summarize(outcomes)
    assert told == {"episodes": 4, "success": 0.5, "falls": 0.5, "path_over_straight": 1.25}
    assert evaluation.summarize(outcomes[2:])["path_over_straight"] is None
    json.dumps(told, allow_nan=False)


def test_wrong_questions_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="levels are 0 to 9"):
        evaluation.evaluate("latest", [0, 10], 4)
    with pytest.raises(ConfigError, match="at least 1 episode"):
        evaluation.evaluate("latest", [0], 0)
    with pytest.raises(CheckpointError, match="no such file"):
        evaluation.evaluate(str(tmp_path / "nothing"), [0], 1)
