"""Which cores are claimed for workers, and when none are. The claims and affinities are real."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.workers import cores
from isaac_hydra_ext.workers.child import pin
from isaac_hydra_ext.workers.cores import WorkerCores, one_of_each_pair_first

from ..builders import run_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim under names that no run on this machine uses."""
    monkeypatch.setattr(cores, "CLAIM", f"isaac_hydra_ext.test.{os.getpid()}")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[int]]]:
    """Six cores that this process may use, whatever the real ones are."""
    state = {"allowed": set(range(6))}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(state["allowed"]))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, c: state.update(allowed=set(c)))
    monkeypatch.setattr(cores, "TOPOLOGY", Path("/nowhere"))
    yield state


def claimed(workers: int, kind: str = "gym", **rollout: Any) -> WorkerCores:
    config = run_config(rollout={"num_workers": workers})
    config.env.kind = kind
    for name, value in rollout.items():
        setattr(config.rollout, name, value)
    return WorkerCores(config)


def test_workers_have_their_cores_and_the_learner_the_others(
    machine: dict[str, set[int]],
) -> None:
    own = claimed(2)
    assert own.cores == [0, 1] and machine["allowed"] == {2, 3, 4, 5}
    assert own.note == "workers are pinned to cores 0, 1; the learner has 4"
    assert [own.of(0), own.of(1)] == [0, 1]
    own.release()
    assert machine["allowed"] == set(range(6)) and own.of(0) is None


def test_two_runs_never_share_a_core_and_what_is_given_back_is_free_again(
    machine: dict[str, set[int]],
) -> None:
    one = claimed(2)
    machine["allowed"] = set(range(6))  # of the other process
    other = claimed(2)
    assert (one.cores, other.cores) == ([0, 1], [2, 3])
    machine["allowed"] = set(range(6))
    third = claimed(3)
    assert third.cores == [] and third.of(0) is None
    assert third.note.endswith("not pinned to cores: other runs have taken all but 2 of 6 cores")
    assert machine["allowed"] == set(range(6))
    one.release()
    assert claimed(3).cores == [0, 1, 4], "a claim that failed has kept nothing"


@pytest.mark.parametrize(
    ("workers", "kind", "rollout", "why"),
    [
        (2, "gym", {"pin_cores": False}, "rollout.pin_cores=false"),
        (2, "gym", {"device": "cuda:0"}, "the simulation is on cuda:0"),
        (2, "isaaclab", {}, "Isaac Lab with Kit has threads of its own"),
        (6, "gym", {}, "6 and the learner are more than the 6 cores there are"),
    ],
)
def test_when_workers_are_not_pinned_the_note_says_why(
    machine: dict[str, set[int]], workers: int, kind: str, rollout: dict[str, Any], why: str
) -> None:
    own = claimed(workers, kind, **rollout)
    assert own.cores == [] and own.note == f"workers are not pinned to cores: {why}"
    assert machine["allowed"] == set(range(6))


def test_a_sandbox_that_forbids_it_is_no_error(
    machine: dict[str, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, wanted: set[int]) -> None:
        if wanted != set(range(6)):
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    own = claimed(2)
    assert own.cores == [] and "not allowed" in own.note


def test_hyperthreads_of_one_core_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path)
    for core, siblings in {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}.items():
        path = tmp_path / f"cpu{core}" / "topology" / "thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(siblings + "\n")
    assert one_of_each_pair_first({0, 1, 4, 5, 7}) == [0, 1, 7, 4, 5]


def test_a_process_that_is_pinned_really_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    try:
        pin(None)
        assert os.sched_getaffinity(0) == before
        pin(min(before))
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
