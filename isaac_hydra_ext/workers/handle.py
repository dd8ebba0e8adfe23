"""What the learner keeps of one worker, and how it talks to it. Runs in the learner's process."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, Protocol

from isaac_hydra_ext.workers.channel import Kind, Message


class SlotState(Enum):
    """Where a slot is in its life. FREE -> WRITING -> READY -> TRAINING -> FREE."""

    FREE = "free"
    WRITING = "writing"
    READY = "ready"
    TRAINING = "training"


class Phase(Enum):
    """What a worker is at."""

    STARTED = "started"
    DESCRIBING = "describing"
    BUILDING = "building"
    COLLECTING = "collecting"
    FAILED = "failed"  # it has said so, and ends without closing its env
    CLOSED = "closed"


class Hosted(Protocol):
    """Where a worker lives: a process of this machine, or one that somebody else watches."""

    @property
    def pid(self) -> int | None:
        """Of the process; None where that is another machine's."""
        ...

    @property
    def sentinel(self) -> int:
        """What can be waited for with `connection.wait`: the end of it."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it and whatever it has started; nothing more is said or written by it."""
        ...

    def describe_exit(self) -> str:
        """Return how it ended, e.g. `was killed by SIGKILL`."""
        ...

    def close(self) -> None:
        """Let go of one that has ended."""
        ...


@dataclass
class WorkerHandle:
    """One worker process and what it has been asked for.

    Attributes:
        index: Its place, 0 .. W - 1.
        generation: How many processes have had this place before.
        deadline: `time.monotonic()` by which the question it was asked must be answered.
        granted: Iteration -> COLLECT, for what is not READY yet.
        ready: Iteration -> slot.
        states: Of its L + 1 slots.
        has_collected: A rollout, so that kernels are compiled and caches are filled.
        is_slow: It has been told that the first rollout takes long.
    """

    index: int
    generation: int
    process: Hosted
    pipe: Connection
    phase: Phase = Phase.STARTED
    deadline: float = math.inf
    granted: dict[int, Message] = field(default_factory=dict)
    ready: dict[int, int] = field(default_factory=dict)
    states: list[SlotState] = field(default_factory=list)
    has_collected: bool = False
    is_slow: bool = False

    def __str__(self) -> str:
        """Return the name that messages use."""
        return f"worker {self.index} (generation {self.generation})"

    def ask(self, kind: Kind, phase: Phase, timeout_s: float, body: dict[str, Any]) -> None:
        """Ask for something that takes a while and must be answered in time."""
        self.phase, self.deadline = phase, time.monotonic() + timeout_s
        self.say(kind, body=body)

    def answered(self, phase: Phase) -> None:
        """Note that the question has been answered."""
        self.phase, self.deadline = phase, math.inf

    def say(self, kind: Kind, **fields: Any) -> None:
        """Send one message; a process that has just died is not told, its sentinel tells us."""
        self._send(Message(kind, self.generation, **fields))

    def _send(self, message: Message) -> None:
        try:
            message.send(self.pipe)
        except OSError:
            return

    def grant(self, iteration: int, version: int, slot: int, body: dict[str, Any]) -> None:
        """Let it collect `iteration` into `slot` with `version` or newer."""
        order = Message(Kind.COLLECT, self.generation, iteration, version, slot, body)
        self.granted[iteration] = order
        self._send(order)

    def received(self) -> Iterator[Message]:
        """Yield what has come, without waiting."""
        while True:
            try:
                if not self.pipe.poll(0):
                    return
                message = Message.receive(self.pipe)
            except (EOFError, OSError):
                return  # the process is ending; its sentinel says so
            if message.generation == self.generation:
                yield message

    def move(self, slot: int, old: SlotState, new: SlotState) -> None:
        """Move a slot on in its life."""
        assert self.states[slot] is old, f"slot {slot} of {self}: {self.states}"
        self.states[slot] = new

    @property
    def sentinel(self) -> int:
        """What can be waited for with `connection.wait`: the end of the process."""
        return self.process.sentinel

    @property
    def ended(self) -> bool:
        """Whether the process is over, without reaping it."""
        return bool(connection.wait([self.sentinel], 0))

    def close(self) -> None:
        """Let go of a process that has ended: nothing is sent, received or waited for any more."""
        self.pipe.close()
        self.process.close()
