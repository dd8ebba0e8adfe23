"""The prototype of two stages does what one after the other does."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from benchmarks.pipeline_stages import Stage, in_turn, pipelined


class Counting:
    """A stage whose action is the newest observation, and whose step adds one."""

    steps = 5

    def __init__(self) -> None:
        self.obs: list[int] = []

    def begin(self) -> None:
        self.obs = [0]

    def act(self, t: int) -> int:
        return self.obs[t]

    def step(self, action: int) -> int:
        return action + 1

    def keep(self, t: int, result: int) -> None:
        assert len(self.obs) == t + 1
        self.obs.append(result)


def test_both_halves_take_every_step_from_the_observation_before_it() -> None:
    halves: list[Any] = [Counting(), Counting()]
    with ThreadPoolExecutor(1) as stepper:
        pipelined(cast(list[Stage], halves), stepper)
    found = [half.obs for half in halves]
    in_turn(cast(list[Stage], halves))
    assert found == [half.obs for half in halves] == [[0, 1, 2, 3, 4, 5]] * 2
