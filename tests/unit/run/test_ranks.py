"""What ranks settle before and while they learn; the ranks are threads."""

from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.errors import RankDiffersError, RankError
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.run.episodes import EpisodeTracker, joined_states
from isaac_hydra_ext.run.metrics import mean_of_ranks
from isaac_hydra_ext.run.ranks import Ranks

from ..builders import run_config


class Answers(Group):
    """A rank whose group has been told already what the others say."""

    def __init__(self, rank: int, *others: Any) -> None:
        self.rank, self.size, self._others = rank, len(others) + 1, others

    def exchange(self, data: Any) -> list[Any]:
        before, after = self._others[: self.rank], self._others[self.rank :]
        return [*before, data, *after]


def ranks(rank: int, *others: Any) -> Ranks:
    return Ranks(Seat(rank, len(others) + 1), Answers(rank, *others))


def test_weights_that_differ_are_told_by_their_digests() -> None:
    weights = {"policy.x": torch.ones(3), "term.own": torch.zeros(1)}
    said: list[Any] = []
    group = Answers(0)
    group.size, group.exchange = 2, lambda data: [said.append(data) or data] * 2  # type: ignore[method-assign, func-returns-value]
    Ranks(Seat(0, 2), group).compare({**weights, "term.own": torch.ones(1)}, 3)
    Ranks(Seat(0, 2), group).compare(weights, 3)
    assert said[0] == said[1]  # what is a term's own is not compared
    with pytest.raises(RankDiffersError, match=rf"iteration 3 rank 0 has the weights {'f' * 16} "):
        ranks(1, "f" * 64).compare(weights, 3)


def test_ranks_with_another_configuration_are_told_the_knob(tmp_path: Path) -> None:
    config, other = run_config(), run_config(ppo={"gamma": 0.5})
    theirs = {"run_dir": str(tmp_path), "config": config.to_dict()}
    assert ranks(1, theirs).settle(None, config) == tmp_path / "rank_1"
    assert (tmp_path / "rank_1").is_dir()
    with pytest.raises(RankError, match=r"ppo.gamma: rank 0 has 0.99, rank 1 0.5; start all"):
        ranks(1, theirs).settle(None, other)


def test_a_rank_alone_asks_nobody(tmp_path: Path) -> None:
    alone = Ranks()
    assert alone.is_first and alone.is_first_left and alone.farewell({}) == []
    assert alone.settle(tmp_path, run_config()) == tmp_path
    alone.compare({}, 0)


def test_episodes_are_of_all_ranks() -> None:
    trackers = [EpisodeTracker(1, 2, [False], num_ranks=2) for _ in range(2)]
    trackers[0].load_state_dict({"finished": [[1.0, 10], [2.0, 20]], "total": 2})
    trackers[1].load_state_dict({"finished": [[6.0, 60]], "total": 1})
    trackers[0].reward_per_step, trackers[0]._kept_envs = 1.0, 2
    trackers[1].reward_per_step, trackers[1]._kept_envs = 4.0, 1
    shares = [tracker.share() for tracker in trackers]
    for rank, tracker in enumerate(trackers):
        tracker.take(shares, rank)
        assert (tracker.mean_return, tracker.mean_length) == (3.0, 30.0)
        assert tracker.reward_per_step == 2.0
    joined = joined_states([tracker.state_dict(episodes_go_on=True) for tracker in trackers])
    assert joined["total"] == 3 and len(joined["finished"]) == 3
    assert joined["running"]["return"] == [[0.0, 0.0], [0.0, 0.0]]


def test_a_metric_is_the_mean_over_the_ranks_that_have_it() -> None:
    assert mean_of_ranks([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0, "b": 2.0}
