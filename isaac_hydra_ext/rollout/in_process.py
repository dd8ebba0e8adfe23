"""W = 0: a `RolloutSource` in the learner's own process and main thread.

Nothing is shared, spawned or sent; slots are ordinary tensors on the simulation's device. A granted
rollout is collected when somebody asks for it (`gather`) or, with L >= 1, while the update runs in
a background thread (`beside`).
"""

import contextlib
import faulthandler
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from isaac_hydra_ext.config.placement import learner_device
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TaskDescription
from isaac_hydra_ext.envs.registry import describe_task
from isaac_hydra_ext.errors import EnvError, IsaacHydraExtError, RunInterrupted
from isaac_hydra_ext.rollout.collector import Collector
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.source import EnvStates
from isaac_hydra_ext.rollout.weights import WeightStore, version_for
from isaac_hydra_ext.system.activity import Activity, listen
from isaac_hydra_ext.system.background import BackgroundThread, result_of

CLOSE_LIMIT_S = 30.0
T = TypeVar("T")
R = TypeVar("R")


class InProcessCollector:
    """One env and one collector; see `RolloutSource` for its methods."""

    def __init__(self, config: RunConfig) -> None:
        """Nothing is built yet."""
        self._config = config
        self.counts = RolloutCounts()
        self.notes: list[str] = []
        self.random_start = [False]
        self._updates: BackgroundThread[Any] | None = None
        self._gathered = -1  # the newest
        self._granted: dict[int, tuple[int, bool]] = {}  # iteration -> oldest version, save state
        self._collector: Collector | None = None
        self._failure: IsaacHydraExtError | None = None  # of a rollout collected ahead
        self.activities = [Activity("this process")]
        listen(self.activities[0].begin)

    @property
    def collector(self) -> Collector:
        """What collects, once `build` has made it."""
        assert self._collector is not None
        return self._collector

    def describe(self) -> TaskDescription:
        self.notes.append("no worker processes: this one simulates")
        return describe_task(self._config.env, self._config.rollout.device)

    def build(self, config: RunConfig, run_dir: Path, env_states: EnvStates, first: int) -> EnvSpec:
        self._config = config
        state = env_states[0] if env_states else None
        with self._telling("build"):
            self._collector = Collector(config, 0, 0, run_dir, state, first)
        self.random_start = [self._collector.random_start]
        where = config.rollout.device
        if where.startswith("cuda"):
            shared = where == learner_device(config)
            beside = " beside the learner (two processes on one GPU only take turns)"
            self.notes.append(f"simulating on {where}{beside if shared else ''}")
        return self._collector.env.spec

    def attach(self, layout: SlotLayout, weights_size: int, device: torch.device) -> WeightStore:
        lag, where = self._config.rollout.max_policy_lag, self._config.rollout.device
        self._slots = Slot.allocate_all(layout, where, lag + 1)
        for slot in self._slots:
            self.collector.acting_on(slot)  # before an update in its thread uses the GPU
        self._weights = WeightStore.allocate(weights_size, lag, where)
        return self._weights

    def grant(self, oldest: int, iteration: int, save_env_state: bool) -> None:
        self._granted[iteration] = (oldest, save_env_state)

    def announce(self, version: int) -> None:
        self._version = version

    def beside(self, update: Callable[[], T], meanwhile: Callable[[], R]) -> tuple[T, R]:
        if self._config.rollout.max_policy_lag == 0:
            read = meanwhile()
            return update(), read
        self._updates = self._updates or BackgroundThread()
        result = self._updates.submit(update)
        try:
            read = meanwhile()
            self._collect_ahead()
        except RunInterrupted:
            raise  # the user waits for nothing any more
        except Exception:
            result_of(result, self._gathered)
            raise
        return result_of(result, self._gathered), read

    def _collect_ahead(self) -> None:
        """Collect the next granted rollout; what the env raises waits for `gather`."""
        try:
            self._collect(self._gathered + 1)
        except RunInterrupted:
            raise
        except IsaacHydraExtError as e:
            self._failure = e

    def _collect(self, iteration: int) -> None:
        if iteration not in self._granted:
            return
        oldest, save_env_state = self._granted.pop(iteration)
        deterministic = self._config.rollout.deterministic
        version = version_for(iteration, oldest, self._version, deterministic)
        slot = self._slots[iteration % len(self._slots)]
        with _one_thread(), self._telling("step"):
            self._weights.load(version, self.collector.policy.flat)
            self.collector.collect(slot, iteration, version, _no_heartbeat, 0.0, save_env_state)
        self.counts.produced += slot.reward_TB.numel()

    def gather(self, iteration: int) -> list[Slot]:
        if self._failure is not None:
            raise self._failure
        self._collect(iteration)
        self._gathered = iteration
        return [self._slots[iteration % len(self._slots)]]

    def release(self, iteration: int) -> None:
        slot = self._slots[iteration % len(self._slots)]
        self.counts.release(slot.reward_TB.numel(), slot.dropped_samples)

    def close(self) -> list[str]:
        if self._updates is not None:
            self._updates.stop()
        collector, self._collector = self._collector, None
        if collector is None:
            return []
        self.counts.abandoned = self.counts.produced - self.counts.consumed
        # An env that hangs ends the process, with its stack on stderr. Nothing gentler is possible:
        # native code may hold the interpreter.
        faulthandler.dump_traceback_later(CLOSE_LIMIT_S, exit=True, file=2)
        try:
            with self._telling("close"):
                collector.env.close()
        except EnvError as e:
            return [str(e)]
        finally:
            faulthandler.cancel_dump_traceback_later()
        return []

    @contextlib.contextmanager
    def _telling(self, phase: str) -> Iterator[None]:
        """Turn what an env raises into our own error, as a worker's report does."""
        try:
            yield
        except IsaacHydraExtError:
            raise
        # A signal of the user's is none of these: `StopSignals` has it.
        except (Exception, SystemExit, KeyboardInterrupt) as e:
            env = self._config.env.id or self._config.env.task
            what = f"{phase}, env {env}: {type(e).__name__}: {e}"
            raise EnvError(f"{what}\n{traceback.format_exc()}") from e


def _no_heartbeat(steps: int) -> None:
    """Nobody watches a collector in the learner's own process."""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Act with one thread, as workers do: the results are then the same to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
