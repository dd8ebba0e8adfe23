"""What becomes of a worker that failed, and how long one is waited for."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isaac_hydra_ext.config.schema import RolloutConfig
from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.errors import EnvContractError, EnvError, InvalidNumberError, WorkerError
from isaac_hydra_ext.system.activity import Activity
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers import failures, patience
from isaac_hydra_ext.workers.child import error_body
from isaac_hydra_ext.workers.failures import Failures
from isaac_hydra_ext.workers.handle import WorkerHandle
from isaac_hydra_ext.workers.patience import Patience, silence_limit, slow_start

from ..builders import run_config


def worker(index: int = 0, generation: int = 0) -> WorkerHandle:
    nothing: Any = SimpleNamespace()
    return WorkerHandle(index, generation, nothing, nothing)


class Rig:
    """The failures of a run that trains with two workers."""

    def __init__(self, seat: Seat | None = None, **rollout: Any) -> None:
        self.said: list[str] = []
        config = run_config(rollout={"num_workers": 2, **rollout})
        config.seat = seat or config.seat
        activities = [Activity("worker 0"), Activity("worker 1")]
        self.failures = Failures(config, StopSignals(), self.said.append, activities)
        self.failures.training = True


def step(text: str) -> None:
    weights = {"upright": 1.0}
    weights[text]


def other_step(text: str) -> None:
    raise KeyError(text)


def body_of(function: Any, text: str = "uprigth", phase: str = "step") -> dict[str, Any]:
    """The ERROR of a worker whose env calls `function`."""
    try:
        function(text)
    except Exception as e:
        return error_body(e, phase, "Slip-v0")
    raise AssertionError


def test_the_same_traceback_of_two_generations_ends_the_run_with_it() -> None:
    rig = Rig()
    rig.failures.report(worker(), body_of(step, "object at 0x7f01"))
    (said,) = rig.said
    assert said.startswith("worker 0 (generation 0) raised: KeyError: 'object at 0x7f01' (see ")
    assert "workers/worker_0.log); replaced (1 of at most 10 per hour)" in said
    with pytest.raises(WorkerError) as ended:  # an address in its message is another each time
        rig.failures.report(worker(generation=1), body_of(step, "object at 0x7f02"))
    first, *rest = str(ended.value).splitlines()
    assert first.startswith("worker 0, step, env Slip-v0: KeyError: 'object at 0x7f02'; so did ")
    assert "see workers/worker_0.log in the run directory; rollout.num_workers=0 runs" in first
    assert any("test_worker_failures.py" in line and "in step" in line for line in rest)
    assert len(rig.said) == 1


def test_the_log_of_another_ranks_worker_is_looked_for_in_its_own_directory() -> None:
    rig = Rig(seat=Seat(rank=1, size=2))
    rig.failures.report(worker(), body_of(step))
    assert "(see rank_1/workers/worker_0.log); replaced" in rig.said[0]


def test_what_is_not_the_same_twice_in_a_row_is_charged_to_the_budget() -> None:
    rig = Rig()
    report, charge = rig.failures.report, rig.failures.charge
    report(worker(0, 0), body_of(step))
    report(worker(1, 0), body_of(step))  # of another worker's place
    report(worker(0, 1), body_of(other_step))  # other lines, and the same words
    report(worker(0, 2), body_of(step))
    charge(worker(0, 3), "was killed by SIGKILL")  # in between
    report(worker(0, 4), body_of(step))
    assert len(rig.said) == 6 and "6 of at most 10 per hour" in rig.said[-1]
    with pytest.raises(WorkerError, match="worker 1, step, env Slip-v0: KeyError"):
        report(worker(1, 1), body_of(step))


def test_a_slip_an_hour_is_an_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, now = Rig(), time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(failures, "time", clock)
    for generation in range(4):
        rig.failures.report(worker(generation=generation), body_of(step))
        now += 3601.0
    assert len(rig.said) == 4


def test_invalid_numbers_are_replaced_as_on_invalid_says() -> None:
    def invalid(text: str) -> None:
        raise InvalidNumberError("env 1, step 2: reward[0] is nan")

    rig = Rig(on_invalid="restart_worker")
    for generation in range(10):
        rig.failures.report(worker(generation=generation), body_of(invalid))
    with pytest.raises(WorkerError, match="max_restarts=10 replacements per hour are used up"):
        rig.failures.report(worker(generation=10), body_of(invalid))
    with pytest.raises(InvalidNumberError):
        Rig().failures.report(worker(), body_of(invalid))


def test_our_own_error_says_what_to_do_without_a_traceback() -> None:
    def broken(text: str) -> None:
        raise EnvError("obs group policy: expected float32 [3]")

    rig = Rig()
    rig.failures.report(worker(), body_of(broken))
    with pytest.raises(EnvError, match="expected float32 .*so did the one before it") as ended:
        rig.failures.report(worker(generation=1), body_of(broken))
    assert "\n" not in str(ended.value)


def test_a_broken_contract_replaces_nobody() -> None:
    def broken(text: str) -> None:
        raise EnvContractError("the reward of env 0 has the shape (3,)")

    rig = Rig()
    with pytest.raises(EnvContractError, match="^worker 0, step, env Slip-v0: the reward of env 0"):
        rig.failures.report(worker(), body_of(broken))


@pytest.mark.parametrize("rollout", [{"on_worker_failure": "stop"}, {"deterministic": True}])
def test_where_nothing_is_replaced_the_first_one_is_told_whole(rollout: dict[str, Any]) -> None:
    with pytest.raises(WorkerError, match="step, env Slip-v0: KeyError.*num_workers=0") as ended:
        Rig(**rollout).failures.report(worker(), body_of(step))
    assert "in step" in str(ended.value)


def test_what_a_dead_worker_has_left_is_named(tmp_path: Path) -> None:
    rig = Rig(on_worker_failure="stop")
    rig.failures.logs = tmp_path
    with pytest.raises(WorkerError, match="killed by SIGKILL; what it said is above"):
        rig.failures.charge(worker(1), "was killed by SIGKILL")
    (tmp_path / "worker_1.log").touch()
    with pytest.raises(WorkerError, match="; see workers/worker_1.log in the run directory"):
        rig.failures.charge(worker(1), "was killed by SIGKILL")


def test_a_first_rollout_has_the_time_of_a_start_and_that_is_said_once() -> None:
    rollout, starting = RolloutConfig(), worker()
    assert silence_limit(starting, rollout) == (600.0, "rollout.startup_timeout_s")
    assert slow_start(starting, rollout, 29.0) == ""
    told = slow_start(starting, rollout, 31.0)
    assert told.startswith("worker 0 (generation 0): no step of its first rollout has ended for 31")
    assert "up to 600 s (rollout.startup_timeout_s)" in told
    assert slow_start(starting, rollout, 32.0) == ""
    starting.has_collected = True
    assert silence_limit(starting, rollout) == (120.0, "rollout.heartbeat_timeout_s")
    assert slow_start(worker(), RolloutConfig(heartbeat_timeout_s=5.0), 6.0)


def test_a_first_rollout_has_no_less_time_than_the_others() -> None:
    rollout = RolloutConfig(startup_timeout_s=5.0, heartbeat_timeout_s=60.0)
    assert silence_limit(worker(), rollout) == (60.0, "rollout.heartbeat_timeout_s")


def test_time_in_which_nobody_listened_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now))
    waiting, watched = Patience(), worker()
    watched.deadline = 1010.0
    now += 4.0
    waiting.listened([watched])
    assert waiting.silence_s(999 * 10**9) == pytest.approx(5.0)
    now += 30.0
    waiting.listened([watched])
    assert waiting.silence_s(999 * 10**9) == pytest.approx(0.0)
    assert watched.deadline == pytest.approx(1040.0)
