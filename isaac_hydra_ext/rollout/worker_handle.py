"""What the learner keeps of each worker, and of the samples: plain data in its own process."""

from dataclasses import dataclass, field
from enum import Enum
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from isaac_hydra_ext.rollout.channel import Message


class SlotState(Enum):
    """Where a slot is in its life. FREE -> WRITING -> READY -> TRAINING -> FREE."""

    FREE = "free"
    WRITING = "writing"
    READY = "ready"
    TRAINING = "training"


@dataclass
class WorkerHandle:
    """What the learner knows of one worker's place."""

    index: int
    generation: int
    process: SpawnProcess
    pipe: Connection
    asked: float | None = None  # time.monotonic() of a DESCRIBE or BUILD not answered yet
    built: bool = False
    closed: bool = False
    granted: dict[int, Message] = field(default_factory=dict)  # iteration -> COLLECT, not READY
    ready: dict[int, int] = field(default_factory=dict)  # iteration -> slot
    states: list[SlotState] = field(default_factory=list)


@dataclass
class RolloutCounts:
    """Samples [transitions] over the run; produced = consumed + abandoned at its end."""

    produced: int = 0
    consumed: int = 0
    abandoned: int = 0
    dropped: int = 0  # of the abandoned: envs left out of a rollout for NaN or Inf
    restarts: int = 0

    def release(self, collected: int, dropped: int) -> None:
        """Count a rollout that the learner has taken, less what it leaves out."""
        self.consumed += collected - dropped
        self.abandoned += dropped
        self.dropped += dropped
