"""Ctrl-C and its kin: once, finish the iteration and save; twice, now.

Handlers run in the learner's main thread.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from isaac_hydra_ext.errors import RunInterrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The same signal again this soon is an echo, no impatience: `timeout` signals its command, and then
# the group that the command is in; of a parent's death (`die_with_parent`) the kernel tells once
# for each thread that it had; of a terminal's end its shell tells too, once it has put things away.
ECHO_S, ECHO_OF_DEATH_S, ECHO_OF_HANGUP_S = 0.05, 1.0, 5.0


def signal_name(signum: int) -> str:
    """Return e.g. `SIGKILL`; real-time signals have no name."""
    names = {number.value: number.name for number in signal.Signals}
    return names.get(signum, f"signal {signum}")


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP set `requested`; a second one raises at once.

    Attributes:
        signum: The first signal, 0 before it.
        at_once: A second one has come: close without grace.
        closing: The run is being closed: a signal must not raise into that any more.
        beside_table: The cursor is on the last line of a live table, which is drawn again from
            there: what is said stays on that line.
        check: Called where something is waited for; raises if that has become pointless.
    """

    def __init__(self) -> None:
        """Nothing is installed yet."""
        self.signum = 0
        self.at_once = False
        self.closing = False
        self.beside_table = False
        self.check: Callable[[], None] = lambda: None
        self._before: dict[int, Any] = {}
        self._when = 0.0  # of the first signal
        self._parent = 0

    @property
    def requested(self) -> bool:
        """Whether the run should end after this iteration."""
        return self.signum != 0

    def begin_closing(self) -> None:
        """From here on a second signal raises no more: it has what is being closed hurry up."""
        self.closing = True

    def raise_if_requested(self) -> None:
        """End a run that has not begun to train.

        Raises:
            RunInterrupted: A signal has come.
            IsaacHydraExtError: What `check` raises.
        """
        self.check()
        if self.requested:
            raise RunInterrupted(self.signum, f"stopped by signal {self.signum} before training")

    def __enter__(self) -> "StopSignals":
        """Install the handlers (only a main thread can).

        A hangup that is ignored stays so: that is what `nohup` is for.
        """
        self._parent = os.getppid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def keep(self) -> None:
        """Install the handlers again, over those of others.

        Simulators have some of their own, and so has LLVM, with which Triton compiles: of two
        signals at a time, as `timeout` sends them, the second ends the process where it stands.
        """
        for number in self._before:
            signal.signal(number, self._handle)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        after_s = time.monotonic() - self._when
        echo_s = ECHO_S if os.getppid() == self._parent else ECHO_OF_DEATH_S
        if signum == signal.SIGHUP:
            echo_s = ECHO_OF_HANGUP_S
        if signum == self.signum and after_s < echo_s:
            return
        if self.requested:
            self.at_once = True
            if not self.closing:
                raise RunInterrupted(signum, f"stopped at once by a second signal {signum}")
            return
        self.signum, self._when = signum, time.monotonic()
        said = b"stopping after this iteration; once more to stop now"
        with contextlib.suppress(OSError):  # the terminal may be gone: that is what SIGHUP says
            in_place = self.beside_table and not self.closing and os.isatty(2)
            os.write(2, b"\r\x1b[K" + said if in_place else said + b"\n")
