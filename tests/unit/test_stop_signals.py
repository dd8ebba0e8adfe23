"""What counts as a second signal."""

import signal

import pytest

from isaac_hydra_ext import stop_signals
from isaac_hydra_ext.errors import RunInterrupted
from isaac_hydra_ext.stop_signals import ECHO_S, StopSignals


def test_a_parents_death_is_one_signal_however_often_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: now)
    with StopSignals() as stop:
        monkeypatch.setattr(stop_signals.os, "getppid", lambda: 1)
        signal.raise_signal(signal.SIGTERM)
        now += 0.9 * ECHO_S
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested and not stop.at_once
        now += 0.2 * ECHO_S
        with pytest.raises(RunInterrupted, match="stopped at once by a second signal 15"):
            signal.raise_signal(signal.SIGTERM)
        assert stop.at_once


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_while_the_parent_lives_is_never_an_echo(second: int) -> None:
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(RunInterrupted, match=f"second signal {second}"):
            signal.raise_signal(second)
        assert stop.at_once
