"""How many samples were produced, learned from and lost. Runs in the learner's process."""

from dataclasses import dataclass


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
