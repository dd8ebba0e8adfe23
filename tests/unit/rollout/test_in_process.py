"""W = 0: what an env or an update raises while the two go on side by side, and the counts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from isaac_hydra_ext.errors import EnvError, IsaacHydraExtError, LearnerError, RunInterrupted

from ..builders import InProcessRun, run_config

SAMPLES = 2 * 8  # of a rollout


@contextmanager
def run_of(lag: int) -> Iterator[InProcessRun]:
    run = InProcessRun(run_config(2, rollout={"max_policy_lag": lag}))
    try:
        yield run
    finally:
        run.source.close()


@pytest.fixture
def run() -> Iterator[InProcessRun]:
    """With L = 1, and rollout 0 granted: it is collected beside the first update."""
    with run_of(lag=1) as run:
        yield run


def let_env_raise(
    run: InProcessRun, error: IsaacHydraExtError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(actions_BA: torch.Tensor) -> None:
        raise error

    monkeypatch.setattr(run.source.collector.env, "step", step)


def nothing() -> None:
    pass


def test_an_error_waits_for_the_update(run: InProcessRun, monkeypatch: pytest.MonkeyPatch) -> None:
    let_env_raise(run, EnvError("of the env"), monkeypatch)
    assert run.source.beside(lambda: "updated", lambda: "read") == ("updated", "read")
    with pytest.raises(EnvError, match="of the env"):
        run.source.gather(0)


def test_what_comes_before_the_env_s_step_waits_too(
    run: InProcessRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    # E.g. an error that the update's thread has left on the GPU: its own is the one to tell.
    def load(version: int, flat: torch.Tensor) -> None:
        raise RuntimeError("of the device")

    monkeypatch.setattr(run.weights, "load", load)
    run.source.beside(nothing, nothing)
    with pytest.raises(EnvError, match="of the device"):
        run.source.gather(0)


def test_a_second_ctrl_c_does_not(run: InProcessRun, monkeypatch: pytest.MonkeyPatch) -> None:
    let_env_raise(run, RunInterrupted(2, "now"), monkeypatch)
    with pytest.raises(RunInterrupted):
        run.source.beside(nothing, nothing)


def test_what_is_read_meanwhile_is_read_beside_the_update_and_its_error_waits(
    run: InProcessRun,
) -> None:
    done: list[str] = []

    reading = threading.Event()

    def update() -> None:
        assert reading.wait(60), "nothing goes on beside it"
        done.append("updated")

    def read() -> None:
        done.append("read")
        reading.set()
        raise OSError("of the reading")

    with pytest.raises(OSError, match="of the reading"):
        run.source.beside(update, read)
    assert done == ["read", "updated"]


@pytest.mark.parametrize("lag", [0, 1])
def test_samples_of_a_failed_update_are_abandoned(lag: int) -> None:
    def update() -> None:
        raise LearnerError("no update")

    with run_of(lag) as run:
        run.collect(0)
        run.source.beside(nothing, nothing)
        run.source.release(0)
        run.source.grant(0, 1, save_env_state=False)
        run.source.gather(1)
        run.source.grant(0, 2, save_env_state=False)
        with pytest.raises(LearnerError):
            run.source.beside(update, nothing)
        run.source.close()
        counts = run.source.counts
    collected = 2 + lag  # rollout 2 beside the update that failed
    assert counts.produced == collected * SAMPLES
    assert (counts.consumed, counts.abandoned) == (SAMPLES, (collected - 1) * SAMPLES)


def test_with_l_0_one_comes_after_the_other() -> None:
    done: list[str] = []
    with run_of(lag=0) as run:
        run.source.beside(lambda: done.append("updated"), lambda: done.append("read"))
    assert done == ["read", "updated"]
