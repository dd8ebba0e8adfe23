"""Signs of life of all ranks, and their last words, in PyTorch's key-value store.

Runs in each rank, in a thread of its own: a rank may wait for its workers, or for its GPU, much
longer than it may be silent. A rank that ends says why; one that is killed, or whose machine is
lost, falls silent.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from isaac_hydra_ext.errors import first_line
from isaac_hydra_ext.system.streams import say_error

PERIOD_S = 1.0
SILENT_PERIODS = 4  # after which a rank that is suspected to have gone has
DEAF_S = 60.0  # between a rank's end and ours, where the main thread waits for what never comes


class Beats:
    """What this rank tells the others, and what it hears of them.

    Attributes:
        gone: Rank -> why, of those that have ended before the run has.
        limit_s: How long a rank may be silent [s].
        on_gone: Called in the thread once a rank has gone.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        limit_s: float,
        how_ended: Callable[[int], str] = lambda rank: "",
    ) -> None:
        """Tell the others that this rank is there.

        Args:
            store: A connection of its own: the thread must not wait for another's request.
            rank: Of this process.
            size: How many there are.
            limit_s: How long a rank may be silent [s].
            how_ended: Says how a rank's process has ended, where this one can know.
        """
        self.gone: dict[int, str] = {}
        self.limit_s, self._how_ended = limit_s, how_ended
        self.on_gone: Callable[[], None] = lambda: None
        self._store, self._rank, self._size = store, rank, size
        self._others = [other for other in range(size) if other != rank]
        self._words: dict[int, dict[str, Any]] = {}  # of ranks that have ended
        self._own_words: dict[str, Any] | None = None
        self._number = 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._heard = threading.Event()  # the main thread knows that a rank has gone
        now = time.monotonic()
        self._last = {other: ("", now) for other in self._others}  # rank -> its beat, and when
        self._tell()
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)

    def everybody_is_there(self) -> bool:
        """Return whether each rank has told; without waiting."""
        return self._store.check([_key(other) for other in self._others])

    def start(self) -> None:
        """Begin to listen, once everybody is there."""
        now = time.monotonic()
        self._last = {other: ("", now) for other in self._others}
        self._thread.start()

    def say(self, status: str, data: Any = None) -> None:
        """Say one's last words, at once. Only the first ones count.

        Args:
            status: `left`: all is done; `failed`: `data` is the error's text.
            data: JSON-ready.
        """
        if self._own_words is None:
            self._own_words = {"status": status, "data": data}
            try:
                self._tell()
            except RuntimeError:
                return  # the store has gone, and with it anybody to tell

    def last_words(self, rank: int) -> Any:
        """Return what a rank that has left gave; None if it has not, or failed."""
        words = self._words.get(rank, {})
        return words.get("data") if words.get("status") == "left" else None

    def has_ended(self, rank: int) -> bool:
        """Return whether a rank has left, failed or gone."""
        return rank in self._words or rank in self.gone

    def heard(self) -> None:
        """Say that the main thread knows who has gone, and will end by itself."""
        self._heard.set()

    def verdict(self) -> dict[int, str]:
        """Wait until it is clear who has gone, as something common has failed; returns `gone`.

        Whoever still lives beats within few seconds.
        """
        began, deadline = time.monotonic(), time.monotonic() + SILENT_PERIODS * PERIOD_S
        while not self.gone and time.monotonic() < deadline:
            self._ended.wait(0.05)
            for other in self._others:
                if not self.has_ended(other) and (how := self._how_ended(other)):
                    self._ended.wait(PERIOD_S)  # its last words may be on their way
                    self.gone.setdefault(other, how)
        for other in self._others:
            if self._last[other][1] < began and not self.has_ended(other):
                self.gone[other] = "it has ended without a word"
        return self.gone

    def close(self) -> None:
        """Stop beating."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(2 * PERIOD_S)

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        noticed, reachable = None, True
        while not self._ended.wait(PERIOD_S):
            try:
                if reachable:
                    self._tell()
                    self._listen()
            except RuntimeError as e:  # what torch raises of a store that cannot be reached
                reachable, host = False, 0 if self._rank else self._others[0]
                self.gone.setdefault(host, f"the ranks' store is lost ({first_line(e)})")
            if self.gone and noticed is None:
                noticed = time.monotonic()
                self.on_gone()
            if noticed and not self._heard.is_set() and time.monotonic() - noticed > DEAF_S:
                who, why = next(iter(self.gone.items()))
                say_error(f"error: rank {who}: {why}; rank {self._rank} waits for it in vain")
                os._exit(1)

    def _tell(self) -> None:
        with self._lock:
            self._number += 1
            beat = {"number": self._number, "words": self._own_words}
            self._store.set(_key(self._rank), json.dumps(beat))

    def _listen(self) -> None:
        now = time.monotonic()
        for other, value in zip(
            self._others, self._store.multi_get([_key(r) for r in self._others]), strict=True
        ):
            text = value.decode()
            if text != self._last[other][0]:
                self._last[other] = (text, now)
                words = json.loads(text)["words"]
                if words is not None:
                    self._words[other] = words
                    if words["status"] == "failed":
                        self.gone.setdefault(other, str(words["data"]))
            elif now - self._last[other][1] > self.limit_s and not self.has_ended(other):
                self.gone[other] = (
                    f"it has been silent for {self.limit_s:g} s (rollout.heartbeat_timeout_s)"
                )


def _key(rank: int) -> str:
    return f"beat/{rank}"


def connect(host: str, port: int, is_host: bool, timeout_s: float) -> TCPStore:
    """Connect to the ranks' store, or make it.

    Args:
        host: Its address.
        port: Its port; 0: any that is free, where this process makes it.
        is_host: This process makes it.
        timeout_s: For the connection, and for each request [s].

    Raises:
        RuntimeError: There is none, in that time.
    """
    wait = timedelta(seconds=timeout_s)
    return TCPStore(host, port, None, is_host, timeout=wait, wait_for_workers=False)
