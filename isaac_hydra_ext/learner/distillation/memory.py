"""What a teacher remembers of each env's running episode. Runs in the learner's process.

It is asked about whole rollouts, one after the other: what it remembers after one is what it begins
the next with, but where an episode does not go on.
"""

from collections.abc import Sequence

import torch

from isaac_hydra_ext.models.policy import State
from isaac_hydra_ext.rollout.slot import Slot


class TeacherMemory:
    """A state of all envs; empty for a teacher without memory.

    Attributes:
        fresh: Of an episode's start, name -> [1, ...].
        all: Before the next rollout, name -> [W * B, ...]; these tensors stay the same.
    """

    def __init__(self, fresh: State, num_envs: int) -> None:
        """Begin episodes in W * B = `num_envs` envs."""
        self.fresh = fresh
        self.all = {name: x.repeat_interleave(num_envs, 0) for name, x in fresh.items()}
        self._columns: torch.Tensor | None = None  # that the batch shows, of W * B; None: all
        self._generations: list[int] = []
        self._restarted: list[torch.Tensor] = []

    def begin(self, slots: Sequence[Slot]) -> None:
        """Forget episodes that do not go on in these rollouts: of envs, or workers, begun anew."""
        if not self.all:
            return
        generations = [int(slot.header["generation"][0]) for slot in slots]
        if self._generations:
            before = zip(self._restarted, generations, self._generations, strict=True)
            anew = torch.cat([envs | (now != then) for envs, now, then in before])
            for name, x in self.all.items() if anew.any() else ():
                x[anew.to(x.device)] = self.fresh[name]
        self._generations = generations
        self._restarted = [slot.restarted_B.clone() for slot in slots]
        dropped = torch.cat([slot.dropped_B for slot in slots])
        self._columns = (~dropped).nonzero().squeeze(1) if dropped.any() else None

    def current(self) -> State:
        """Return the state of the envs that are learned from, [N, ...]."""
        if self._columns is None:
            return self.all
        return {name: x[self._columns.to(x.device)] for name, x in self.all.items()}

    def keep(self, state: State) -> None:
        """Go on from there; `state` as `current` has it."""
        for name, x in self.all.items():
            if self._columns is None:
                x.copy_(state[name])
            else:
                x[self._columns.to(x.device)] = state[name].to(x.dtype)
