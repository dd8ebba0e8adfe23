"""The scale model: cases whose iteration time is known in closed form, and its flags."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.scale_model import INPUTS, main, predict
from benchmarks.scale_sim import Plan, simulate
from benchmarks.scale_task import Collective, Links, Task

K = 40


def iteration_s(
    plan: Plan, collect: float | np.ndarray, update: float | np.ndarray, warm_up: int = 5
) -> float:
    collect_KRW = np.broadcast_to(collect, (K, plan.ranks, plan.workers))
    update_KR = np.broadcast_to(update, (K, plan.ranks))
    return simulate(plan, collect_KRW, update_KR).iteration_s(warm_up)


@pytest.mark.parametrize(
    ("lag", "collect", "update", "expected"),
    [(0, 3.0, 2.0, 5.0), (1, 3.0, 2.0, 3.0), (1, 2.0, 3.0, 3.0), (2, 3.0, 2.0, 3.0)],
)
def test_one_after_the_other_without_a_lag_and_the_longer_of_the_two_with_one(
    lag: int, collect: float, update: float, expected: float
) -> None:
    plan = Plan(workers=3, lag=lag)
    assert iteration_s(plan, collect, update) == pytest.approx(expected)
    assert iteration_s(Plan(ranks=4, lag=lag), collect, update) == pytest.approx(expected)


def test_the_first_iterations_by_hand() -> None:
    # Rollouts 0 and 1 at once, each worker's at its own pace; rollout 2 when version 1 is there.
    collect_KRW = np.array([[[1.0, 2.0]], [[4.0, 1.0]], [[1.0, 1.0]]])
    found = simulate(Plan(workers=2, lag=1), collect_KRW, np.full((3, 1), 1.5))
    assert found.begin.tolist() == [2.0, 5.0, 6.5]
    assert found.end.tolist() == [3.5, 6.5, 8.0]
    assert found.learner_waits_s() == pytest.approx(0.75)


def test_without_a_lag_every_iteration_waits_for_the_slowest_of_all_workers() -> None:
    rng = np.random.default_rng(0)
    p, W, iterations = 0.1, 8, 4000
    collect_KRW = np.where(rng.random((iterations, 1, W)) < p, 3.0, 1.0)
    found = simulate(Plan(workers=W, lag=0), collect_KRW, np.full((iterations, 1), 0.5))
    expected = 1.0 + 2.0 * (1 - (1 - p) ** W) + 0.5
    assert found.iteration_s() == pytest.approx(expected, rel=0.02)
    # A lag lets a worker that was slow once catch up: between the mean and the slowest.
    ahead = [
        simulate(Plan(workers=W, lag=lag), collect_KRW, np.full((iterations, 1), 0.5))
        for lag in (1, 2)
    ]
    assert 1.0 + 2.0 * p < ahead[1].iteration_s() < ahead[0].iteration_s() < expected - 0.5


def test_an_update_waits_for_the_slowest_rank_and_then_reduces() -> None:
    plan = Plan(ranks=2, lag=0, allreduce_s=0.25)
    assert iteration_s(plan, np.array([[1.0], [2.0]]), np.array([0.5, 1.0])) == pytest.approx(3.25)


def test_processes_share_the_cores_that_there_are() -> None:
    assert iteration_s(Plan(workers=4, lag=0, cores=2), 1.0, 1.0) == pytest.approx(3.0)
    assert iteration_s(Plan(workers=2, lag=0, cores=1.5), 1.0, 1.0) == pytest.approx(4 / 3 + 1.0)
    # 4 rollouts and an update, 5 s of work, keep 2 cores busy; 3 s and 1 s alone would not.
    assert iteration_s(Plan(workers=4, lag=2, cores=2), 1.0, 1.0) == pytest.approx(2.5, rel=0.02)
    assert iteration_s(Plan(workers=4, lag=0, cores=2, remote=4), 1.0, 1.0) == pytest.approx(2.0)


def test_remote_rollouts_come_over_one_link_and_weights_go_back() -> None:
    plan = Plan(workers=4, lag=0, remote=4, link_s=0.5, weights_s=0.25)
    assert iteration_s(plan, 1.0, 1.0) == pytest.approx(1.0 + 4 * 0.5 + 1.0 + 0.25)
    bound = Plan(workers=4, lag=2, remote=4, link_s=0.5, weights_s=0.25)
    assert iteration_s(bound, 1.0, 1.0) == pytest.approx(2.0)  # the link's
    assert iteration_s(Plan(workers=4, lag=0, remote=0, link_s=0.5), 1.0, 1.0) == 2.0


def row(**changes: Any) -> dict[str, Any]:
    """A task of 8 envs and 10 steps: an env costs 1/16 s a rollout, a sample 2.5 ms an update."""
    base: dict[str, Any] = {
        **{"envs": 8, "steps": 10, "epochs": 2, "minibatches": 4, "parameters": 250_000},
        **{"bytes_per_sample": 25, "local": 3, "collect_s": [1.0], "update_s": [0.5]},
        "collect_by_envs": [[8, 1.0], [32, 2.5]],
        "update_by_samples": [[80, 0.5], [320, 1.1]],
    }
    return base | changes


FREE = Links(Collective(0.0, np.inf, False, ""), np.inf, np.inf, 0.0, local=1000)


def test_rollouts_and_updates_follow_the_knobs() -> None:
    task = Task(row())
    shape = replace(task.shape(2, 4, 1), envs=16, steps=20, minibatches=2)
    assert task.collect_s(shape) == pytest.approx((0.5 + 16 / 16) * 2)
    assert task.update_s(shape) == pytest.approx(0.3 / 2 + 0.0025 * 2 * 16 * 20)
    assert (task.reductions(shape), task.rollout_bytes(shape)) == (4, 8000)


def test_a_plan_has_what_the_links_say() -> None:
    task = Task(row())
    ring = Collective(1e-3, 1.0, False, "")
    assert ring.seconds(4, 4e6) == pytest.approx(6e-3 + 1.5 * 4e-3)
    assert ring.seconds(1, 4e6) == 0.0
    assert replace(ring, tree=True).seconds(64, 0.0) == pytest.approx(12e-3)
    plan = Links(ring, 0.5, 2.0, 0.01, task.local).plan(task, task.shape(2, 20, 1))
    assert (plan.workers, plan.remote) == (10, 7)
    assert plan.link_s == pytest.approx(2000 / 0.5e9 + 2000 / 2e9)
    assert plan.weights_s == pytest.approx(0.01 + 3 * 1e6 / 0.5e9)  # three machines of three
    assert plan.allreduce_s == pytest.approx(8 * (2e-3 + 1e-3))


@pytest.mark.parametrize(("lag", "share", "bound"), [(0, 1 / 1.5, "update"), (1, 1.0, "")])
def test_the_share_of_simulation_alone(lag: int, share: float, bound: str) -> None:
    found = predict(Task(row()), Task(row()).shape(4, 4, lag), FREE, 20, seed=0)
    assert found.share == pytest.approx(share) and found.bound == bound
    assert found.steps_per_s == pytest.approx(4 * 80 * share)


def test_more_samples_a_rank_bound_it_by_the_update_and_more_ranks_do_not() -> None:
    task = Task(row())
    one = predict(task, task.shape(1, 16, 1), FREE, 20, 0)
    assert one.bound == "update" and one.iteration_s == pytest.approx(0.3 + 0.0025 * 16 * 80)
    assert predict(task, task.shape(8, 16, 1), FREE, 20, 0).share == pytest.approx(1.0)


def test_a_seed_gives_the_same_numbers_and_a_longer_rollout_a_shorter_tail() -> None:
    task = Task(row(collect_s=[0.9, 0.9, 0.9, 1.3]))
    shape = task.shape(2, 16, 1)
    first = predict(task, shape, FREE, 30, seed=1)
    assert predict(task, shape, FREE, 30, seed=1) == first
    assert predict(task, shape, FREE, 30, seed=2) != first
    rng = np.random.default_rng(0)
    spread = [
        float(np.std(c) / np.mean(c))
        for c in (task.draw(replace(shape, steps=T), 4000, rng)[0] for T in (10, 40))
    ]
    assert spread[1] == pytest.approx(spread[0] / 2, rel=0.05)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--lag", "-1"], "argument --lag: -1: must be 0 or more"),
        (["--network", "nan"], "argument --network: nan: must be 0.001 or more"),
        (["--iterations", "x"], "argument --iterations: invalid int value: 'x'"),
        (["--inputs", "/nowhere.json"], "--inputs /nowhere.json: not a record of --record"),
        (["--task", "Ant"], "--task Ant: not in the inputs, which have "),
    ],
)
def test_a_bad_flag_is_one_line(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and says in said and "\n" not in said


def test_the_record_is_compared_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--check", "--iterations", "5"])
    checks = json.loads(INPUTS.read_text())["results"]["checks"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(checks)
