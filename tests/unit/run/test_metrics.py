"""Finished episodes counted by hand, and what summary.json holds."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.run.episodes import EpisodeTracker
from isaac_hydra_ext.run.metrics import rollout_notes
from isaac_hydra_ext.run.rate import SteadyRate
from isaac_hydra_ext.run.summary import summarize, write_summary
from isaac_hydra_ext.run.totals import RunTotals

from ..builders import env_spec

# The list in the design, word for word and in its order.
SUMMARY_KEYS = [
    "status", "iterations", "env_steps", "wall_s", "fps", "mean_return", "best_return",
    "mean_episode_length", "policy_lag_mean", "worker_restarts", "samples_produced",
    "samples_consumed", "samples_abandoned", "learner_idle_s", "workers_wait_s", "device",
    "versions",
]  # fmt: skip
# What docs/metrics.md says besides.
MORE_KEYS = {"fps_left_out", "reward_per_step", "no_mean_return"}
METRICS = {
    "Perf/iteration_time": 2.0, "Async/policy_lag": 1.0, "Async/learner_idle_s": 0.0,
    "Async/workers_wait_s": 0.0, "Loss/undone": 0.0,
}  # fmt: skip


def slot_of(
    rewards_TB: list[list[float]],
    terminated: tuple[tuple[int, int], ...] = (),
    truncated: tuple[tuple[int, int], ...] = (),
    generation: int = 0,
) -> Slot:
    """A slot with these rewards; ends are (t, b)."""
    T, B = len(rewards_TB), len(rewards_TB[0])
    layout = SlotLayout(env_spec(B), T, torch.float32)
    slot = Slot.map(layout, np.zeros(layout.nbytes, np.uint8))
    slot.reward_TB.copy_(torch.tensor(rewards_TB))
    slot.header["generation"] = generation
    for flags, ends in ((slot.terminated_TB, terminated), (slot.truncated_TB, truncated)):
        for t, b in ends:
            flags[t, b] = True
    return slot


def finished(tracker: EpisodeTracker) -> list[tuple[float, int]]:
    return [tuple(e) for e in tracker.state_dict(episodes_go_on=False)["finished"]]


def test_before_the_first_episode_there_is_no_mean() -> None:
    tracker = EpisodeTracker(1, 1, [False])
    tracker.observe([slot_of([[1.0], [1.0]])])
    assert tracker.mean_return is None and tracker.mean_length is None
    assert tracker.total_finished == 0


def test_returns_and_lengths_across_two_rollouts() -> None:
    # env 0: 1 + 2 | 4 + 8 ... + 16;  env 1: 10 + 20 + 40 + 80
    tracker = EpisodeTracker(1, 2, [False])
    tracker.observe([slot_of([[1, 10], [2, 20], [4, 40]], terminated=((1, 0),))])
    assert finished(tracker) == [(3.0, 2)]
    ends = {"terminated": ((0, 1),), "truncated": ((1, 0),)}
    tracker.observe([slot_of([[8, 80], [16, 160], [32, 320]], **ends)])
    assert finished(tracker) == [(3.0, 2), (150.0, 4), (28.0, 3)]
    assert tracker.mean_return == (3 + 150 + 28) / 3
    assert tracker.mean_length == 3.0
    assert tracker.total_finished == 3


def test_an_episode_that_terminates_and_truncates_at_once_is_one() -> None:
    tracker = EpisodeTracker(1, 1, [False])
    tracker.observe([slot_of([[1.0]], terminated=((0, 0),), truncated=((0, 0),))])
    assert finished(tracker) == [(1.0, 1)]


def test_episodes_are_in_order_of_time_then_worker_then_env() -> None:
    tracker = EpisodeTracker(2, 2, [False, False])
    first = slot_of([[1, 2], [3, 4]], terminated=((1, 0), (0, 1)))
    second = slot_of([[5, 6], [7, 8]], terminated=((0, 0), (0, 1)))
    tracker.observe([first, second])
    assert finished(tracker) == [(2.0, 1), (5.0, 1), (6.0, 1), (4.0, 2)]


def test_first_episodes_of_random_length_do_not_count_and_the_next_ones_do() -> None:
    tracker = EpisodeTracker(2, 1, [True, False])
    for _ in range(2):
        slots = [slot_of([[1.0], [2.0]], truncated=((1, 0),)) for _ in range(2)]
        tracker.observe(slots)
    # worker 0: only the second episode; worker 1: both
    assert finished(tracker) == [(3.0, 2)] * 3
    assert tracker.total_finished == 3


def test_a_new_process_begins_new_partial_episodes_and_the_others_go_on() -> None:
    tracker = EpisodeTracker(2, 1, [True, False])
    for _ in range(2):  # both are past their first episode
        tracker.observe([slot_of([[1.0]], ((0, 0),)), slot_of([[1.0]], ((0, 0),))])
    tracker.observe([slot_of([[100.0]]), slot_of([[100.0]])])
    kept = len(finished(tracker))
    # worker 0 died: its 100 belongs to nobody, and its first episode is partial again
    tracker.observe(
        [
            slot_of([[2.0], [3.0]], ((0, 0), (1, 0)), generation=1),
            slot_of([[2.0], [3.0]], ((0, 0),)),
        ]
    )
    assert finished(tracker)[kept:] == [(102.0, 2), (3.0, 1)]


def test_what_a_dead_process_had_collected_belongs_to_no_episode() -> None:
    tracker = EpisodeTracker(1, 1, [False])
    tracker.observe([slot_of([[100.0]])])
    tracker.observe([slot_of([[2.0], [3.0]], ((1, 0),), generation=1)])
    assert finished(tracker) == [(5.0, 2)]


def test_the_mean_is_over_the_last_hundred() -> None:
    tracker = EpisodeTracker(1, 1, [False])
    for value in range(130):
        tracker.observe([slot_of([[float(value)]], ((0, 0),))])
    assert tracker.mean_return == (30 + 129) / 2
    assert tracker.total_finished == 130


def test_state_round_trip_goes_on_with_running_episodes() -> None:
    whole = EpisodeTracker(1, 2, [True])
    whole.observe([slot_of([[1, 2], [3, 4]], ((0, 0),))])
    state = json.loads(json.dumps(whole.state_dict(episodes_go_on=True)))
    other = EpisodeTracker(1, 2, [False])  # resumed envs do not start at random times again
    other.load_state_dict(state)
    for tracker in (whole, other):
        tracker.observe([slot_of([[5, 6], [7, 8]], ((1, 0), (0, 1), (1, 1)))])
    # env 0: 3 + 5 + 7; env 1's first episode is partial still, then 8
    assert finished(whole) == finished(other) == [(15.0, 3), (8.0, 1)]
    assert other.total_finished == 2


def test_state_without_running_episodes_starts_them_anew() -> None:
    tracker, other = EpisodeTracker(1, 1, [False]), EpisodeTracker(1, 1, [False])
    tracker.observe([slot_of([[1.0], [100.0]], ((0, 0),))])
    other.load_state_dict(tracker.state_dict(episodes_go_on=False))
    other.observe([slot_of([[7.0]], ((0, 0),))])
    assert finished(other) == [(1.0, 1), (7.0, 1)]


def test_steps_that_were_left_out_belong_to_no_episode() -> None:
    tracker = EpisodeTracker(1, 2, [False])
    tracker.observe([slot_of([[1, 10], [2, 20]])])
    spoilt = slot_of([[4, float("nan")], [8, 40]], ((1, 0), (1, 1)))
    spoilt.dropped_B[1] = spoilt.restarted_B[1] = True
    tracker.observe([spoilt])
    tracker.observe([slot_of([[1, 50], [2, 60]], ((1, 0), (1, 1)))])
    assert finished(tracker) == [(15.0, 4), (3.0, 2), (110.0, 2)]


def test_an_env_that_began_anew_alone_begins_a_whole_episode() -> None:
    tracker = EpisodeTracker(1, 2, [True])
    spoilt = slot_of([[4, float("nan")]])
    spoilt.dropped_B[1] = spoilt.restarted_B[1] = True
    tracker.observe([spoilt])
    tracker.observe([slot_of([[1, 50], [2, 60]], ((1, 0), (1, 1)))])
    assert finished(tracker) == [(110.0, 2)], "env 0 is in its first one, of random length"


def test_episodes_that_were_broken_off_for_another_env_do_not_count() -> None:
    tracker = EpisodeTracker(2, 2, [False, True])
    for _ in range(2):  # worker 1 is past its first episodes
        ends = ((0, 0), (0, 1))
        tracker.observe([slot_of([[0, 0]], ends), slot_of([[0, 0]], ends)])
    kept = len(finished(tracker))
    slots = [slot_of([[1, 2]]), slot_of([[3, 4]])]
    for slot in slots:
        slot.dropped_B[0] = True
        slot.restarted_B.fill_(True)
    tracker.observe(slots)
    for _ in range(2):
        ends = ((0, 0), (0, 1))
        tracker.observe([slot_of([[10, 20]], ends), slot_of([[30, 40]], ends)])
    # Worker 1's envs have begun at random times again: the first two do not count.
    assert [r for r, _ in finished(tracker)[kept:]] == [10.0, 20.0, 10.0, 20.0, 30.0, 40.0]


# ------------------------------------------------------------------ notes


def test_a_collectors_notes_are_said_with_its_worker() -> None:
    extras = [{"log": {}}, {"log": {}, "notes": ["env 3 is odd"]}]
    said: set[str] = set()
    assert rollout_notes(4, extras, said) == ["worker 1: env 3 is odd"]
    assert rollout_notes(5, extras, said) == ["worker 1: env 3 is odd"]


def test_what_does_not_fit_beside_a_rollout_is_said_once() -> None:
    slots = [slot_of([[1.0]]) for _ in range(2)]
    for slot in slots:
        slot.write_extra({"log": {"x": 1.0}, "env_state": "s" * 200_000, "notes": []})
    extras = [slot.read_extra() for slot in slots]
    said: set[str] = set()
    (line,) = rollout_notes(3, extras, said)
    assert line.startswith("worker 0, rollout 3: the env's env_state takes 200,002 bytes")
    assert line.endswith("a resumed run starts its episodes anew")
    assert rollout_notes(4, extras, said) == []


def test_dropped_samples_are_counted_among_the_abandoned() -> None:
    counts = RolloutCounts(produced=30)
    counts.release(20, 4)
    counts.release(10, 0)
    assert (counts.consumed, counts.abandoned, counts.dropped) == (26, 4, 4)
    metrics = RunTotals(samples_dropped=1).sample_metrics(counts)
    assert metrics["Async/samples_dropped"] == 5
    assert metrics["Async/samples_consumed"] == 26


def test_the_reward_of_a_step_is_known_before_an_episode_ends_and_leaves_dropped_envs_out() -> None:
    tracker = EpisodeTracker(1, 2, [True])
    assert tracker.reward_per_step is None
    slot = slot_of([[1.0, np.nan], [2.0, np.inf]])
    slot.dropped_B[1] = True
    tracker.observe([slot])
    assert (tracker.reward_per_step, tracker.mean_return) == (1.5, None)
    metrics = RunTotals().add(METRICS, tracker, 4, steady=True)
    assert metrics["Train/reward_per_step"] == 1.5 and "Train/mean_reward" not in metrics
    slot.dropped_B[:] = True
    tracker.observe([slot])
    assert tracker.reward_per_step == 1.5, "of the last iteration that has any"


# ------------------------------------------------------------------ rates


def test_a_rate_is_of_the_last_ten_steady_iterations() -> None:
    rate = SteadyRate(first=5, last=30, lag=0)
    assert rate.add(5, 100, 50.0) == 2.0, "the first one compiles, and is all there is"
    assert rate.add(6, 100, 1.0) == 100.0
    for k in range(7, 17):
        rate.add(k, 100, 2.0)
    assert rate.add(17, 100, 2.0) == 50.0, "iteration 6 is out of the window"
    assert rate.add(29, 100, 12.0) == 1000 / 30, "without lag the last one is like the others"


@pytest.mark.parametrize("lag", [1, 2])
def test_iterations_beside_which_nothing_is_collected_do_not_raise_the_rate(lag: int) -> None:
    rate = SteadyRate(first=0, last=10, lag=lag)
    seconds = [60.0] + [0.1] * lag + [2.0] * (9 - 2 * lag) + [0.1] * lag
    rates = [rate.add(k, 100, s) for k, s in enumerate(seconds)]
    assert rates[0] == 100 / 60
    assert rates[1 + lag :] == [50.0] * (9 - lag)


def test_a_run_too_short_for_a_steady_iteration_has_the_rate_of_all_of_it() -> None:
    rate = SteadyRate(first=0, last=3, lag=1)
    assert [rate.add(k, 10, s) for k, s in enumerate((8.0, 1.0, 1.0))] == [10 / 8, 20 / 9, 3.0]


def test_the_summary_says_what_its_rate_leaves_out() -> None:
    totals, tracker = RunTotals(), EpisodeTracker(1, 1, [False])
    for seconds, steady in ((30.0, False), (2.0, True), (2.0, True), (0.5, False)):
        totals.add(METRICS | {"Perf/iteration_time": seconds}, tracker, 100, steady)
    found = summarize("completed", totals, RolloutCounts(), tracker, torch.device("cpu"))
    assert (found["wall_s"], found["fps"]) == (34.5, 50.0)
    assert found["fps_left_out"] == {"iterations": 2, "wall_s": 30.5}
    again = RunTotals.from_json(json.loads(json.dumps(asdict(totals))))
    assert again == totals, "a resumed run goes on with them"
    before = {k: v for k, v in asdict(totals).items() if not k.startswith("steady")}
    assert RunTotals.from_json(before).fps == 400 / 34.5, "of a checkpoint made before"


# ------------------------------------------------------------------ summary.json


def summary(tmp_path: Path) -> dict[str, object]:
    totals = RunTotals(
        iterations=4, env_steps=1000, wall_s=8.0, best_return=7.5, policy_lag_sum=3.0,
        learner_idle_s=0.25, workers_wait_s=0.5, worker_restarts=1, samples_produced=10,
        samples_consumed=20, samples_abandoned=30,
    )  # fmt: skip
    counts = RolloutCounts(produced=100, consumed=200, abandoned=300, restarts=2)
    tracker = EpisodeTracker(1, 1, [False])
    tracker.observe([slot_of([[2.0], [4.0]], ((1, 0),))])
    path = tmp_path / "summary.json"
    returned = summarize("completed", totals, counts, tracker, torch.device("cpu"))
    write_summary(path, returned)
    assert json.loads(path.read_text()) == returned
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
    return returned


def test_summary_keys_are_the_designs(tmp_path: Path) -> None:
    found = summary(tmp_path)
    assert [key for key in found if key not in MORE_KEYS] == SUMMARY_KEYS
    assert found.keys() >= MORE_KEYS


def test_summary_values_are_the_totals_with_this_process_share(tmp_path: Path) -> None:
    found = summary(tmp_path)
    versions = found.pop("versions")
    assert found.pop("fps_left_out") == {"iterations": 0, "wall_s": 0.0}, "none was steady"
    assert found.pop("reward_per_step") == 3.0
    assert found.pop("no_mean_return") is None
    assert list(found.values()) == [
        "completed", 4, 1000, 8.0, 125.0, 6.0, 7.5, 2.0, 0.75, 3, 110, 220, 330, 0.25, 0.5, "cpu",
    ]  # fmt: skip
    assert isinstance(versions, dict) and versions["torch"] == torch.__version__


@pytest.mark.parametrize("tracker", [None, EpisodeTracker(1, 1, [False])])
def test_a_run_that_did_nothing_has_a_summary_too(tracker: EpisodeTracker | None) -> None:
    found = summarize("failed", RunTotals(), RolloutCounts(), tracker, torch.device("cpu"))
    assert (found["fps"], found["mean_return"], found["policy_lag_mean"]) == (0.0, None, 0.0)
    assert [key for key in found if key not in MORE_KEYS] == SUMMARY_KEYS
    assert found["no_mean_return"] == "no whole episode has ended"


def test_a_summary_is_strict_json_even_after_a_reward_that_was_not_a_number(
    tmp_path: Path,
) -> None:
    tracker = EpisodeTracker(1, 1, [False])
    tracker.observe([slot_of([[float("nan")]], ((0, 0),))])
    path = tmp_path / "summary.json"
    found = summarize("failed", RunTotals(), RolloutCounts(), tracker, torch.device("cpu"))
    write_summary(path, found)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
