"""What counts as a second signal."""

import os
import signal
from collections.abc import Iterator

import pytest

from isaac_hydra_ext.errors import RunInterrupted
from isaac_hydra_ext.system import stop_signals
from isaac_hydra_ext.system.stop_signals import ECHO_OF_DEATH_S, ECHO_S, StopSignals


@pytest.fixture(autouse=True)
def a_hangup_counts() -> Iterator[None]:
    """Whoever runs the tests may be deaf to it (`nohup`), and what is ignored stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Clock:
    """Time stands still unless it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(stop_signals.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize(("dead", "echo_s"), [(False, ECHO_S), (True, ECHO_OF_DEATH_S)])
def test_an_echo_is_no_second_signal(
    monkeypatch: pytest.MonkeyPatch, dead: bool, echo_s: float
) -> None:
    clock = Clock(monkeypatch)
    with StopSignals() as stop:
        if dead:
            monkeypatch.setattr(stop_signals.os, "getppid", lambda: 1)
        signal.raise_signal(signal.SIGTERM)
        clock.now += 0.9 * echo_s
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested and not stop.at_once
        clock.now += 0.2 * echo_s
        with pytest.raises(RunInterrupted, match="stopped at once by a second signal 15"):
            signal.raise_signal(signal.SIGTERM)
        assert stop.at_once


def test_another_signal_is_never_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(RunInterrupted, match="second signal 2"):
            signal.raise_signal(signal.SIGINT)
        assert stop.at_once


def test_a_shells_own_hangup_after_the_terminals_is_an_echo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGHUP)
        clock.now += 2.0
        signal.raise_signal(signal.SIGHUP)
        assert stop.requested and not stop.at_once
        clock.now += 4.0
        with pytest.raises(RunInterrupted, match="second signal 1"):
            signal.raise_signal(signal.SIGHUP)


@pytest.mark.parametrize(("beside_table", "closing"), [(True, False), (True, True), (False, False)])
def test_what_is_said_beside_a_live_table_stays_on_the_line_that_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch, beside_table: bool, closing: bool
) -> None:
    said: list[bytes] = []
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    monkeypatch.setattr(os, "write", lambda fd, data: said.append(data))
    with StopSignals() as stop:
        stop.beside_table, stop.closing = beside_table, closing
        signal.raise_signal(signal.SIGTERM)
    (line,) = said
    in_place = beside_table and not closing
    assert line.startswith(b"\r\x1b[K") is in_place and line.endswith(b"\n") is not in_place
