"""How many samples were produced, learned from and lost. Runs in the learner's process."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass


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

    def with_others(self, others: Iterable[Mapping[str, int]]) -> "RolloutCounts":
        """Return the sums of this rank's and of the other ranks', each as `asdict` gives them."""
        all_of_them = [asdict(self), *others]
        return RolloutCounts(**{name: sum(c[name] for c in all_of_them) for name in asdict(self)})


def lost(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the last known counts of a rank that has gone: what it has not learned is lost."""
    return {**counts, "abandoned": counts["produced"] - counts["consumed"]}
