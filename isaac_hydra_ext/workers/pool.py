"""The learner's side of the workers, a `RolloutSource`: the handshake, pacing, supervision.

Runs in the learner's main thread alone. Slot states live here; a worker touches a slot only
between the COLLECT that grants it and the READY that returns it. Pacing: rollout k may use any
version from max(first, k - L) to k, so publishing version v grants rollout v + L, and the L + 1
slots of a worker never hold more than it may be ahead.
"""

import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from isaac_hydra_ext.config.placement import device_in_worker
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TaskDescription
from isaac_hydra_ext.envs.registry import describe_task, needs_simulator
from isaac_hydra_ext.errors import HandshakeTimeoutError, RunInterrupted, WorkerError
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.source import EnvStates
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system.activity import Activity
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.terminal.start_progress import READY
from isaac_hydra_ext.workers.ahead import taken
from isaac_hydra_ext.workers.block import BlockPlan
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.closing import end_processes, not_closed
from isaac_hydra_ext.workers.cores import WorkerCores
from isaac_hydra_ext.workers.env_states import Place, write_env_states
from isaac_hydra_ext.workers.failures import Failures
from isaac_hydra_ext.workers.handle import Phase, SlotState, WorkerHandle
from isaac_hydra_ext.workers.launching import Launcher, make_launcher
from isaac_hydra_ext.workers.patience import Patience, silence_limit, slow_start
from isaac_hydra_ext.workers.shared_memory import (
    make_shared_block,
    register_with_cuda,
    unregister_from_cuda,
)

POLL_S = 0.5  # how often supervision looks at heartbeats while it waits
CLOSE_GRACE_S = 5.0  # between CLOSE and SIGTERM, and between SIGTERM and SIGKILL
T = TypeVar("T")
R = TypeVar("R")


class WorkerPool:
    """W worker processes, the block they share, and everything said to them.

    See `RolloutSource` for its methods.
    """

    def __init__(
        self, config: RunConfig, stop: StopSignals, warn: Callable[[str], None] = print
    ) -> None:
        """Spawn nothing yet, so that `close` can follow whatever happens next.

        Args:
            config: From `configure`; `build` is given the complete one.
            stop: Ends the handshake, and the patience of `close`.
            warn: Told of each worker that is replaced.
        """
        self._config, self._stop, self._warn = config, stop, warn
        self.counts = RolloutCounts()
        self._patience = Patience()
        ahead = taken(config)
        self._block = ahead.block if ahead else make_shared_block()
        self._launcher: Launcher = ahead or make_launcher(config, self._block, stop)
        self._workers: list[WorkerHandle] = []
        self._description: TaskDescription | None = None
        self._spec: EnvSpec | None = None
        self._memory: np.ndarray | None = None
        self._pinned: list[np.ndarray] = []  # parts of it
        self._device = torch.device("cpu")  # the learner's
        self._status = np.zeros(0)
        self._slots: list[list[Slot]] = []
        self._build_body: dict[str, Any] = {}
        self._attach_body: dict[str, Any] = {}
        self._env_states: list[Place | None] = []
        self._cores: WorkerCores | None = None
        self.notes: list[str] = []
        self.random_start = [False] * config.num_workers
        self._version = 0
        self._closed = False
        self.activities = [Activity(f"worker {w}") for w in range(config.num_workers)]
        self._failures = Failures(config, stop, warn, self.activities)

    # ---------------------------------------------------------------- handshake

    def describe(self) -> TaskDescription:
        W = self._config.num_workers
        processes = "1 worker process" if W == 1 else f"{W} worker processes"
        self.notes.append(f"starting {processes}; logs in workers/")
        self._launcher.open(self.notes)
        if not needs_simulator(self._config.env):
            return describe_task(self._config.env)
        self._start()
        rollout = self._config.rollout
        device = device_in_worker(rollout.device)
        body = {"env": self._config.to_dict()["env"], "device": device}
        self._workers[0].ask(Kind.DESCRIBE, Phase.DESCRIBING, rollout.startup_timeout_s, body)
        self._wait_while(Phase.DESCRIBING, [0])
        assert self._description is not None
        return self._description

    def build(self, config: RunConfig, run_dir: Path, env_states: EnvStates, first: int) -> EnvSpec:
        self._config = config
        self._start()
        self._failures = Failures(config, self._stop, self._warn, self.activities)
        self._failures.logs = run_dir / "workers"
        self._cores = WorkerCores(config)
        self.notes.append(self._cores.note)
        if config.rollout.device.startswith("cuda"):
            self.notes.append(f"simulating on {config.rollout.device}")
        told = config.to_dict()
        told["rollout"]["device"] = device_in_worker(config.rollout.device)
        self._build_body = {
            "config": told,
            "rank": config.seat.rank,
            "run_dir": str(run_dir),
            "first": first,
        }
        self._env_states = write_env_states(self._block, env_states or [])
        for activity in self.activities[1:]:
            activity.begin("waits for worker 0, which fills caches")
        # Worker 0 first, as it fills caches; then the rest.
        for group in ([0], range(1, len(self._workers))):
            for w in group:
                self._ask_to_build(self._workers[w])
            self._wait_while(Phase.BUILDING, group)
        assert self._spec is not None
        return self._spec

    def attach(self, layout: SlotLayout, weights_size: int, device: torch.device) -> WeightStore:
        lag = self._config.rollout.max_policy_lag
        ring = WeightStore.nbytes(weights_size, lag)
        plan = BlockPlan(layout, len(self._workers), lag + 1, ring)
        self._memory = self._block.allocate(plan.nbytes)
        self._status = plan.status(self._memory)
        self._slots = [plan.slots(self._memory, w) for w in range(len(self._workers))]
        numbers = plan.numbers(weights_size).to_json()
        self._attach_body = {"name": self._block.name, "numbers": numbers}
        for worker in self._workers:
            worker.states = [SlotState.FREE] * (lag + 1)
            self._reset_status(worker)
            worker.say(Kind.ATTACH, body=self._attach_body)
        self._env_states = []  # they were in the block; a replacement's episodes are new ones
        self._failures.training = True
        if device.type == "cuda":
            copied = plan.copied(self._memory, range(len(self._workers)))
            if register_with_cuda(copied, device):
                self._pinned, self._device = copied, device
            else:
                self.notes.append("the buffer cannot be pinned for CUDA: copies are slower")
        return WeightStore.map(plan.weights(self._memory), weights_size, lag)

    def _start(self) -> None:
        """Spawn the W processes, unless that is done.

        Raises:
            WorkerError: The system refuses one more.
        """
        for index in range(len(self._workers), self._config.num_workers):
            self._workers.append(self._spawn(index, 0))

    def _spawn(self, index: int, generation: int) -> WorkerHandle:
        try:
            process, pipe = self._launcher.start(self._config, index, generation)
        except OSError as e:  # no process, no memory, no descriptor left
            raise WorkerError(
                f"worker {index}: cannot start a process: {e}; lower rollout.num_workers or raise "
                "the limit (ulimit -a)"
            ) from e
        self.activities[index].pid = process.pid
        return WorkerHandle(index, generation, process, pipe)

    def _ask_to_build(self, worker: WorkerHandle) -> None:
        timeout_s = self._config.rollout.startup_timeout_s
        assert self._cores is not None
        body = {**self._build_body, "core": self._cores.of(worker.index)}
        if worker.index < len(self._env_states):
            body["env_state"] = self._env_states[worker.index]
        worker.ask(Kind.BUILD, Phase.BUILDING, timeout_s, body)

    def _wait_while(self, phase: Phase, group: Sequence[int]) -> None:
        """Wait until no worker of the group is in `phase`."""
        while any(self._workers[w].phase is phase for w in group):
            self._pump(POLL_S)
            self._stop.raise_if_requested()

    # ---------------------------------------------------------------- pacing

    def grant(self, oldest: int, iteration: int, save_env_state: bool) -> None:
        body = {"save_env_state": True} if save_env_state else {}
        for worker in self._workers:
            slot = iteration % len(worker.states)
            worker.move(slot, SlotState.FREE, SlotState.WRITING)
            worker.grant(iteration, oldest, slot, body)

    def announce(self, version: int) -> None:
        self._version = version
        for worker in self._workers:
            worker.say(Kind.VERSION, version=version)

    def gather(self, iteration: int) -> list[Slot]:
        while missing := [w for w in self._workers if iteration not in w.ready]:
            replacing = any(worker.phase is Phase.BUILDING for worker in missing)
            if replacing and (signum := self._stop.signum):
                raise RunInterrupted(signum, f"signal {signum} while a worker was being replaced")
            self._stop.check()
            self._pump(POLL_S)
        slots = []
        for worker in self._workers:
            index = worker.ready[iteration]
            worker.move(index, SlotState.READY, SlotState.TRAINING)
            slots.append(self._slots[worker.index][index])
        return slots

    def beside(self, update: Callable[[], T], meanwhile: Callable[[], R]) -> tuple[T, R]:
        read = meanwhile()  # the workers collect all the while
        return update(), read

    def release(self, iteration: int) -> None:
        for worker in self._workers:
            index = worker.ready.pop(iteration)
            worker.move(index, SlotState.TRAINING, SlotState.FREE)
            dropped = self._slots[worker.index][index].dropped_samples
            self.counts.release(self._rollout_size, dropped)

    @property
    def _rollout_size(self) -> int:
        assert self._spec is not None
        return self._spec.num_envs * self._config.rollout.steps_per_env

    # ---------------------------------------------------------------- supervision

    def _pump(self, timeout: float) -> None:
        """Wait for messages or deaths, at most `timeout` seconds, and deal with them."""
        pipes = {worker.pipe: worker for worker in self._workers}
        sentinels = {worker.sentinel: worker for worker in self._workers}
        woken = connection.wait([*pipes, *sentinels], timeout)
        self._patience.listened(self._workers)
        for worker in list(self._workers):
            dead = worker.sentinel in woken
            if dead or worker.pipe in woken:
                self._hear(worker)
            if dead and self._has_its_place(worker):
                self._fail(worker, worker.process.describe_exit())
        for worker in list(self._workers):
            self._check_in_time(worker)

    def _hear(self, worker: WorkerHandle) -> None:
        """Deal with what a worker has said: a dead one's last words count."""
        for message in worker.received():
            self._on_message(worker, message)

    def _has_its_place(self, worker: WorkerHandle) -> bool:
        """Return whether no other process has replaced this one."""
        return self._workers[worker.index] is worker

    def _on_message(self, worker: WorkerHandle, message: Message) -> None:
        if message.kind is Kind.READY:
            del worker.granted[message.iteration]
            worker.has_collected = True
            worker.ready[message.iteration] = message.slot
            worker.move(message.slot, SlotState.WRITING, SlotState.READY)
            self.counts.produced += self._rollout_size
        elif message.kind is Kind.DESCRIBED:
            self._description = TaskDescription(**message.body)
            self.activities[worker.index].begin("has read the task")
            worker.answered(Phase.STARTED)
        elif message.kind is Kind.BUILT:
            spec = EnvSpec.from_json(message.body["spec"])
            if self._spec is not None and spec != self._spec:
                raise WorkerError(
                    f"worker {worker.index}: its env differs from worker 0's: {spec}, {self._spec}"
                )
            self._spec = spec
            self.random_start[worker.index] = bool(message.body["random_start"])
            for note in message.body["notes"]:
                self._warn(f"worker {worker.index}: {note}")
            if self._memory is not None:  # a replacement: from here on its heart should beat
                self._status[worker.index]["heartbeat_ns"] = time.monotonic_ns()
            self.activities[worker.index].begin(READY)
            worker.answered(Phase.COLLECTING)
        elif message.kind is Kind.DOING:
            self.activities[worker.index].begin(message.body["what"])
        elif message.kind is Kind.CLOSED:
            worker.answered(Phase.CLOSED)
        elif message.kind is Kind.DIED:
            self._fail(worker, message.body["how"])
        elif message.kind is Kind.ERROR:
            worker.answered(Phase.FAILED)
            self._failures.report(worker, message.body)
            self._replace(worker)

    def _fail(self, worker: WorkerHandle, how: str) -> None:
        """Replace a worker, or end the run if that is not wanted, or not any more."""
        self._failures.charge(worker, how)
        self._replace(worker)

    def _replace(self, worker: WorkerHandle) -> None:
        """Start a new process in a failed one's place and grant it the unfinished rollouts."""
        worker.process.kill()
        new = self._spawn(worker.index, worker.generation + 1)
        worker.close()
        self.counts.restarts += 1
        self._abandon_partial(worker)
        new.ready, new.states = worker.ready, worker.states
        self._workers[worker.index] = new
        self._reset_status(new)
        self._ask_to_build(new)
        new.say(Kind.ATTACH, body=self._attach_body)
        for iteration, order in sorted(worker.granted.items()):
            new.grant(iteration, order.version, order.slot, order.body)
        new.say(Kind.VERSION, version=self._version)

    def _check_in_time(self, worker: WorkerHandle) -> None:
        """Replace a worker that builds for too long, or whose heart has not beaten for too long."""
        rollout = self._config.rollout
        if time.monotonic() > worker.deadline:
            limit_s = rollout.startup_timeout_s
            if not worker.generation:
                raise HandshakeTimeoutError(
                    f"worker {worker.index}: no environment after {limit_s:g} s; raise "
                    "rollout.startup_timeout_s if it needs longer"
                    f"{self._failures.last_told(worker)}"
                )
            knob = "rollout.startup_timeout_s"
            how = f"built no environment within {limit_s:g} s ({knob}) and was killed"
            self._kill(worker, how)
        elif self._memory is not None and worker.phase is Phase.COLLECTING and worker.granted:
            silent_s = self._patience.silence_s(int(self._status[worker.index]["heartbeat_ns"]))
            limit_s, knob = silence_limit(worker, rollout)
            if silent_s > limit_s:
                self._kill(worker, f"was silent for {silent_s:.0f} s ({knob}) and was killed")
            elif told := slow_start(worker, rollout, silent_s):
                self._warn(told)

    def _kill(self, worker: WorkerHandle, how: str) -> None:
        worker.process.kill()
        self._hear(worker)  # it may have finished a rollout just before
        if self._has_its_place(worker):
            self._fail(worker, how)

    def _reset_status(self, worker: WorkerHandle) -> None:
        """Set a worker's record to 'just now, no step of any rollout'."""
        self._status[worker.index] = (time.monotonic_ns(), -1, 0)

    def _abandon_partial(self, worker: WorkerHandle) -> None:
        """Count the steps of an ended worker's unfinished rollout: never learned from."""
        assert self._spec is not None
        status = self._status[worker.index]
        if int(status["iteration"]) in worker.granted:  # else it ended between two rollouts
            partial = int(status["steps"]) * self._spec.num_envs
            self.counts.produced += partial
            self.counts.abandoned += partial

    # ---------------------------------------------------------------- closing

    def close(self) -> list[str]:
        if self._closed:
            return []
        if self._pinned:
            unregister_from_cuda(self._pinned, self._device)
        had_env = [w for w in self._workers if w.phase is Phase.COLLECTING]
        end_processes(self._workers, CLOSE_GRACE_S, lambda: self._stop.at_once)
        for worker in self._workers:
            self._settle(worker)
            worker.close()
        self._launcher.close()
        self._block.close()
        if self._cores is not None:
            self._cores.release()
        self._closed = True
        if self._stop.at_once:
            return []
        return [not_closed(worker) for worker in had_env if worker.phase is not Phase.CLOSED]

    def _settle(self, worker: WorkerHandle) -> None:
        """Read an ended worker's last messages, and count what the learner will not train on."""
        for message in worker.received():
            if message.kind in (Kind.READY, Kind.CLOSED):
                self._on_message(worker, message)
        if self._memory is not None:
            self.counts.abandoned += self._rollout_size * len(worker.ready)
            self._abandon_partial(worker)
