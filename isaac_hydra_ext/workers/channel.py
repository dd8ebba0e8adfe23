"""What the learner and a worker say to each other. Used on both sides of a pipe.

A message is a fixed header and, in the handshake, a JSON body. Nothing is ever unpickled, and no
rollout data passes here: READY names a slot, and with that the slot changes hands.

    learner -> worker: DESCRIBE, BUILD, ATTACH, then COLLECT and VERSION, at the end CLOSE
    worker -> learner: DESCRIBED, BUILT, then READY, at the end CLOSED; ERROR, DOING at any time;
        of a worker on another machine its relay says DIED
    learner -> evaluator: BUILD, then EVALUATE, at the end CLOSE
    evaluator -> learner: BUILT, then EVALUATED, at the end CLOSED; ERROR at any time
"""

import json
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from multiprocessing.connection import Connection
from typing import Any

_HEADER = struct.Struct("<BIqqI")


class Kind(IntEnum):
    """What a message is about."""

    DESCRIBE = 1  # body: env config
    DESCRIBED = 2  # body: task description
    BUILD = 3  # body: run config, log path
    BUILT = 4  # body: env spec
    ATTACH = 5  # body: name of the block
    COLLECT = 6  # rollout `iteration` may be written into `slot`, with `version` or newer
    VERSION = 7  # `version` has been published
    READY = 8  # rollout `iteration` is in `slot`
    CLOSE = 9
    CLOSED = 10
    ERROR = 11  # body: error class, message, traceback, phase
    EVALUATE = 12  # `version` is in the block; body: whether to make a video
    EVALUATED = 13  # body: what came out; the block is the learner's again
    DOING = 14  # body: what takes it so long, in words
    DIED = 15  # body: how a worker ended that another process than the learner watches


@dataclass(frozen=True)
class Message:
    """One message. `generation` counts the processes that a worker's place has had."""

    kind: Kind
    generation: int
    iteration: int = 0
    version: int = 0
    slot: int = 0
    body: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return what travels."""
        head = _HEADER.pack(self.kind, self.generation, self.iteration, self.version, self.slot)
        return head + (json.dumps(self.body).encode() if self.body else b"")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Message":
        """Read what `to_bytes` wrote."""
        kind, generation, iteration, version, slot = _HEADER.unpack_from(data)
        body = json.loads(data[_HEADER.size :]) if len(data) > _HEADER.size else {}
        return cls(Kind(kind), generation, iteration, version, slot, body)

    def send(self, pipe: Connection) -> None:
        """Write to `pipe`."""
        pipe.send_bytes(self.to_bytes())

    @classmethod
    def receive(cls, pipe: Connection) -> "Message":
        """Read one message; the caller has polled.

        Raises:
            EOFError: The other side is gone.
        """
        return cls.from_bytes(pipe.recv_bytes())
