"""When a resumed run ends, and which of a checkpoint's data it goes on from."""

from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.run.resume import keep_env_states, last_iteration, resumed_totals


def sized(steps: int | None, iterations: int = 5) -> RunConfig:
    """W = 2, B = 4, T = 32: 256 samples an iteration."""
    config = RunConfig()
    config.rollout.num_workers, config.rollout.envs_per_worker = 2, 4
    config.rollout.steps_per_env = 32
    config.experiment.max_iterations, config.experiment.max_env_steps = iterations, steps
    return config


def checkpoint(**meta: Any) -> Checkpoint:
    rollout = {"num_workers": 2, "envs_per_worker": 4}
    episodes = {"finished": [], "total": 0, "running": {}}
    config = {"rollout": rollout, "env": RunConfig().to_dict()["env"]}
    return Checkpoint(Path("x"), {}, {"config": config, "episodes": episodes, **meta})


@pytest.mark.parametrize(
    ("steps", "iterations"), [(None, 5), (257, 2), (256, 1), (1, 1), (10_000, 5)]
)
def test_the_first_of_the_two_limits_ends_the_run(steps: int | None, iterations: int) -> None:
    assert last_iteration(sized(steps), None) == iterations


@pytest.mark.parametrize(
    ("steps", "iterations"),
    # 3 iterations of 100 samples each were done with another N_buffer
    [(300, 3), (301, 4), (556, 4), (557, 5), (10_000, 5), (200, 3)],
)
def test_env_steps_of_another_n_buffer_count_as_they_were(steps: int, iterations: int) -> None:
    resumed = checkpoint(iteration=3, env_steps=300)
    assert last_iteration(sized(steps), resumed) == iterations


def test_env_states_of_other_workers_or_envs_are_dropped() -> None:
    states = [{"a": 1}, {"a": 2}]
    kept = checkpoint(env_states=states)
    assert keep_env_states(sized(None), kept)
    assert kept.meta["env_states"] == states and "running" in kept.meta["episodes"]
    for section, name, value in (
        *(("rollout", "num_workers", 1), ("rollout", "envs_per_worker", 8)),
        *(("env", "id", "Other-v0"), ("env", "kwargs", {"g": 1.0})),
    ):
        dropped = checkpoint(env_states=states)
        dropped.meta["config"][section][name] = value
        assert not keep_env_states(sized(None), dropped)
        assert dropped.meta["env_states"] is None and "running" not in dropped.meta["episodes"]


def test_env_states_are_dealt_out_to_another_number_of_ranks_as_far_as_they_go() -> None:
    finished = [[float(n), n] for n in range(5)]
    running = {name: [[n] * 4 for n in range(4)] for name in ("return", "length", "partial")}
    got = []
    for rank in range(3):  # of two collectors each; there were two ranks
        config = sized(None)
        config.seat = Seat(rank, 3)
        of_rank = checkpoint(env_states=[{"a": n} for n in range(4)], ranks=2)
        episodes = {"finished": finished, "total": 7, "running": {**running}}
        of_rank.meta["episodes"].update(episodes)
        assert keep_env_states(config, of_rank) == 4
        got.append(of_rank.meta)
    states = [meta["env_states"] for meta in got]
    assert states == [[{"a": 0}, {"a": 1}], [{"a": 2}, {"a": 3}], [None, None]]
    assert [meta["episodes"]["running"]["return"] for meta in got] == [
        *([[0] * 4, [1] * 4], [[2] * 4, [3] * 4], [])
    ]
    assert [meta["episodes"]["total"] for meta in got] == [7, 0, 0]
    assert sorted(n for meta in got for _, n in meta["episodes"]["finished"]) == [*range(5)]


def test_what_was_in_flight_counts_as_abandoned() -> None:
    totals = {"samples_produced": 100, "samples_consumed": 80, "samples_abandoned": 5}
    assert resumed_totals(checkpoint(totals=totals)).samples_abandoned == 20
