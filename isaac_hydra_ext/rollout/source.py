"""Where rollouts come from: the protocol between the run and whoever collects for it.

Runs in the learner's process, in its main thread. `workers/pool.py` has W worker processes behind
it, `in_process.py` the learner's own; a package registers another in the entry-point group
`isaac_hydra_ext.sources`, as `make(config, stop, warn) -> RolloutSource`, and is chosen by
`rollout.source`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TaskDescription
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system.activity import Activity

EnvStates = Sequence[Mapping[str, Any] | None] | None
T = TypeVar("T")
R = TypeVar("R")


class RolloutSource(Protocol):
    """Rollout k of every collector, for k = first, first + 1, ...: each once, in order.

    The run calls `describe`, `build` and `attach` once, in this order, and then for each iteration
    `grant`, `gather`, `beside`, `release`; `close` may come at any time, and more than once.

    Attributes:
        counts: Of samples; `produced = consumed + abandoned` once `close` has returned.
        notes: Lines for the user. The run prints and removes them after each of the first three
            calls.
        activities: What each collector does while it starts, for the terminal.
        random_start: Per collector, after `build`: its first episodes began at random times.
    """

    counts: RolloutCounts
    notes: list[str]
    activities: list[Activity]
    random_start: list[bool]

    def describe(self) -> TaskDescription:
        """Resolve the task where the simulation will live, without building it.

        No process is started for a task that this process can resolve by itself.

        Raises:
            IsaacHydraExtError: No such task, or nobody answers in time.
        """
        ...

    def build(self, config: RunConfig, run_dir: Path, env_states: EnvStates, first: int) -> EnvSpec:
        """Build all envs and reset them.

        Args:
            config: The complete one.
            run_dir: Of the run; logs and dumps go there.
            env_states: Of a checkpoint, to go on from them: JSON-ready, one a collector. No path:
                the file may be gone by now. None: all episodes start anew.
            first: The iteration that the run begins with.

        Returns:
            The spec of one collector's env; all have the same.

        Raises:
            IsaacHydraExtError: An env that cannot be built, or takes too long.
        """
        ...

    def attach(self, layout: SlotLayout, weights_size: int, device: torch.device) -> WeightStore:
        """Make the slots and the ring of weights, and have every collector use them.

        Args:
            layout: Of a slot; collectors compute the same one from their own policy.
            weights_size: P, the length of the flat vector that the policy's weights are.
            device: The learner's, which copies from the slots.

        Returns:
            Where the learner publishes each version.

        Raises:
            SharedMemoryError: It does not fit.
        """
        ...

    def announce(self, version: int) -> None:
        """Say that `version` is published."""
        ...

    def grant(self, oldest: int, iteration: int, save_env_state: bool) -> None:
        """Let every collector collect rollout `iteration`.

        Args:
            oldest: The oldest version that it may act with; published already.
            iteration: k, at most `oldest` + L.
            save_env_state: Have the env's state stored with this rollout.
        """
        ...

    def gather(self, iteration: int) -> list[Slot]:
        """Wait for rollout `iteration` of every collector.

        Returns:
            The slots in the collectors' order; the learner's until `release`.

        Raises:
            WorkerError: A collector failed and may not be replaced.
            EnvError: What an env raised in this process.
            RunInterrupted: A signal has come, and what is waited for may take minutes.
        """
        ...

    def beside(self, update: Callable[[], T], meanwhile: Callable[[], R]) -> tuple[T, R]:
        """Call both, `meanwhile` in this thread; return what they return.

        Where this thread collects (W = 0, L >= 1), `update` runs in another one, and the next
        granted rollout is collected after `meanwhile`, beside the update.

        Raises:
            Exception: What `update` or `meanwhile` raises, after both have ended. What the env
                raises waits for `gather`.
        """
        ...

    def release(self, iteration: int) -> None:
        """Take rollout `iteration`'s slots back; its samples count as consumed from here on."""
        ...

    def close(self) -> list[str]:
        """End every collector, bounded in time, and settle the counts.

        Returns:
            One line for each env that did not close.
        """
        ...
