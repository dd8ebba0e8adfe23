"""What counts as a second signal."""

import signal

import pytest

from isaac_hydra_ext import stop_signals
from isaac_hydra_ext.errors import RunInterrupted
from isaac_hydra_ext.stop_signals import ECHO_S, StopSignals


def test_an_echo_is_no_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: now)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        now += 0.9 * ECHO_S
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested and not stop.at_once
        now += 0.2 * ECHO_S
        with pytest.raises(RunInterrupted, match="stopped at once by a second signal 15"):
            signal.raise_signal(signal.SIGTERM)
        assert stop.at_once


def test_another_signal_is_never_an_echo() -> None:
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(RunInterrupted, match="second signal 2"):
            signal.raise_signal(signal.SIGINT)
        assert stop.at_once
