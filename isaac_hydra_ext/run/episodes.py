"""Returns and lengths of the episodes that training finishes.

Runs in the learner's main thread, on host memory.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isaac_hydra_ext.evaluation.episodes import summarize_episodes
from isaac_hydra_ext.rollout.slot import Slot

WINDOW = 100  # finished episodes that mean_return is over


class EpisodeTracker:
    """Returns and lengths of finished episodes, of raw rewards, over all workers.

    An env's first episode does not count where it began at a random time. What is told is of all
    ranks, as they were at the last `take`.

    Attributes:
        total_finished: Episodes that count, of this rank.
        reward_per_step: Mean raw reward of a step, over the last iteration's rollouts.
    """

    def __init__(
        self, num_collectors: int, num_envs: int, random_start: list[bool], num_ranks: int = 1
    ) -> None:
        """Start with fresh episodes everywhere.

        Args:
            num_collectors: W, or 1 with W = 0.
            num_envs: B.
            random_start: Per collector; its first episodes are partial.
            num_ranks: Each keeps its part of the last episodes.
        """
        shape = (num_collectors, num_envs)
        self._return_WB = np.zeros(shape)
        self._length_WB = np.zeros(shape, np.int64)
        self._partial_WB = np.repeat(np.array(random_start, bool)[:, None], num_envs, axis=1)
        self._random_start = random_start
        self._generation = [0] * num_collectors
        self._finished: deque[tuple[float, int]] = deque(maxlen=-(-WINDOW // num_ranks))
        self._others: list[tuple[float, int]] = []  # those of the other ranks
        self._kept_envs = 0  # in the last iteration
        self.total_finished = 0
        self.reward_per_step: float | None = None

    def observe(self, slots: list[Slot]) -> None:
        """Read one iteration's rewards and flags, in worker order, before the slots go back.

        Steps of envs that were left out count for no episode.
        """
        for w, slot in enumerate(slots):
            if (generation := int(slot.header["generation"][0])) != self._generation[w]:
                self._generation[w] = generation  # a new process: its episodes are new ones
                self._return_WB[w], self._length_WB[w] = 0.0, 0
                self._partial_WB[w] = self._random_start[w]
        reward_TWB = np.stack([s.reward_TB.cpu().numpy() for s in slots], axis=1)
        done_TWB = np.stack(
            [(s.terminated_TB | s.truncated_TB).cpu().numpy() for s in slots], axis=1
        )
        dropped_WB = np.stack([s.dropped_B.numpy() for s in slots])
        self._kept_envs = int((~dropped_WB).sum())
        if self._kept_envs:
            self.reward_per_step = float(reward_TWB[:, ~dropped_WB].mean(dtype=np.float64))
        return_N, length_N = self._return_WB.reshape(-1), self._length_WB.reshape(-1)  # views
        partial_N, dropped_N = self._partial_WB.reshape(-1), dropped_WB.reshape(-1)
        for reward_WB, done_WB in zip(reward_TWB, done_TWB, strict=True):
            self._return_WB += reward_WB
            self._length_WB += 1
            ended = np.flatnonzero(done_WB)  # few of thousands: only they are looked at
            if not len(ended):
                continue
            counted = ended[~(partial_N[ended] | dropped_N[ended])]
            finished = zip(return_N[counted].tolist(), length_N[counted].tolist(), strict=True)
            self._finished.extend(finished)
            self.total_finished += len(counted)
            return_N[ended], length_N[ended], partial_N[ended] = 0.0, 0, False
        for w, slot in enumerate(slots):
            restarted_B = slot.restarted_B.numpy()
            self._return_WB[w, restarted_B], self._length_WB[w, restarted_B] = 0.0, 0
            # An env that began anew alone is at the start of an episode; where all did, for the
            # sake of one, they are where they began the run.
            all_did = bool((restarted_B & ~dropped_WB[w]).any())
            self._partial_WB[w, restarted_B] = all_did and self._random_start[w]

    def share(self) -> dict[str, Any]:
        """Return what the other ranks must know, JSON-ready."""
        return {
            "finished": list(self._finished),
            "reward": (self.reward_per_step or 0.0, self._kept_envs),
        }

    def take(self, shares: Sequence[Mapping[str, Any]], rank: int) -> None:
        """Take all ranks' shares over, of which `shares[rank]` is this one's."""
        others = [share for other, share in enumerate(shares) if other != rank]
        self._others = [(r, n) for share in others for r, n in share["finished"]]
        if kept := sum(share["reward"][1] for share in shares):
            rewards = sum(mean * envs for mean, envs in (share["reward"] for share in shares))
            self.reward_per_step = rewards / kept

    @property
    def _of_all(self) -> list[tuple[float, int]]:
        return [*self._finished, *self._others]

    def summary(self) -> dict[str, Any] | None:
        """Return `summarize_episodes` of the last 100 finished ones; None before the first."""
        if not self._of_all:
            return None
        return summarize_episodes(*zip(*self._of_all, strict=True))

    @property
    def mean_return(self) -> float | None:
        """Over the last 100 finished episodes; None before the first."""
        return float(np.mean([r for r, _ in self._of_all])) if self._of_all else None

    @property
    def mean_length(self) -> float | None:
        """[steps], likewise."""
        return float(np.mean([n for _, n in self._of_all])) if self._of_all else None

    def state_dict(self, episodes_go_on: bool) -> dict[str, Any]:
        """Return JSON-ready data of this rank; running ones are kept if the envs' states are."""
        state: dict[str, Any] = {"finished": list(self._finished), "total": self.total_finished}
        if episodes_go_on:
            state["running"] = {
                "return": self._return_WB.tolist(),
                "length": self._length_WB.tolist(),
                "partial": self._partial_WB.tolist(),
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s data; collectors whose episodes are not there begin anew."""
        self._finished.extend((float(r), int(n)) for r, n in state["finished"])
        self.total_finished = state["total"]
        running = state.get("running")
        if running and (there := len(running["return"])):
            self._return_WB[:there] = running["return"]
            self._length_WB[:there] = running["length"]
            self._partial_WB[:there] = running["partial"]


def joined_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one `state_dict` of all ranks', in their order."""
    joined: dict[str, Any] = {
        "finished": [pair for state in states for pair in state["finished"]],
        "total": sum(state["total"] for state in states),
    }
    if all("running" in state for state in states):
        joined["running"] = {
            name: [row for state in states for row in state["running"][name]]
            for name in ("return", "length", "partial")
        }
    return joined
