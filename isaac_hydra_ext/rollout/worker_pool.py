"""The learner's side of the workers: spawning, the handshake, pacing, supervision, closing.

Runs in the learner's main thread alone. Slot states live here; a worker touches a slot only
between the COLLECT that grants it and the READY that returns it. Pacing: rollout k may use any
version from max(first, k - L) to k, so publishing version v grants rollout v + L, and the L + 1
slots of a worker never hold more than it may be ahead.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isaac_hydra_ext import errors
from isaac_hydra_ext.config import RunConfig
from isaac_hydra_ext.envs.vec_env import EnvSpec, TaskDescription
from isaac_hydra_ext.errors import HandshakeTimeoutError, WorkerError
from isaac_hydra_ext.rollout.buffer import BlockPlan, Slot, SlotLayout
from isaac_hydra_ext.rollout.channel import Kind, Message
from isaac_hydra_ext.rollout.shared_memory import make_shared_block
from isaac_hydra_ext.rollout.spawning import describe_exit, kill_group, spawn_worker
from isaac_hydra_ext.rollout.weight_store import WeightStore
from isaac_hydra_ext.rollout.worker_handle import RolloutCounts, SlotState, WorkerHandle

POLL_S = 0.5  # how often supervision looks at heartbeats while it waits
CLOSE_GRACE_S = 5.0  # between CLOSE and SIGTERM, and between SIGTERM and SIGKILL
HOUR_S = 3600.0


class WorkerPool:
    """W worker processes, the block they share, and everything said to them."""

    def __init__(self, num_workers: int, warn: Callable[[str], None] = print) -> None:
        """Spawn W >= 1 processes; nothing is built yet.

        Args:
            num_workers: W.
            warn: Told of each worker that is replaced.
        """
        self._warn = warn
        self.counts = RolloutCounts()
        self._block = make_shared_block()
        self._restart_times: list[float] = []
        self._deaths: list[str] = []
        self._closed = False
        self._workers = [self._spawn(w, 0) for w in range(num_workers)]
        self._description: TaskDescription | None = None
        self._spec: EnvSpec | None = None
        self._memory: np.ndarray | None = None
        self._build_bodies: list[dict[str, Any]] = []
        self._random_start = [False] * num_workers

    # ---------------------------------------------------------------- handshake

    def describe(self, config: RunConfig) -> TaskDescription:
        """Have worker 0 resolve the task.

        Raises:
            IsaacHydraExtError: What the worker reports, e.g. `EnvNotFoundError`.
            HandshakeTimeoutError: No answer within `rollout.startup_timeout_s`.
        """
        self._config = config
        self._ask(
            self._workers[0],
            Kind.DESCRIBE,
            {"env": config.to_dict()["env"], "device": config.rollout.device},
        )
        self._wait_handshake([0], lambda worker: self._description is not None)
        assert self._description is not None
        return self._description

    def build(self, config: RunConfig, log_dir: Path, resume_from: Path | None) -> EnvSpec:
        """Have every worker build its env: worker 0 first (it fills caches), then the rest.

        Args:
            config: After `complete`.
            log_dir: Where each worker's output goes.
            resume_from: Checkpoint that holds the envs' states, to go on from them.

        Raises:
            IsaacHydraExtError: An env that cannot be built.
            HandshakeTimeoutError: One that takes too long.
        """
        self._config = config
        everyone = range(len(self._workers))
        for w in everyone:
            body = {"config": config.to_dict(), "log_path": str(log_dir / f"worker_{w}.log")}
            body["resume_from"] = str(resume_from or "")
            self._build_bodies.append(body)
        for group in ([0], list(everyone)[1:]):
            for w in group:
                self._ask(self._workers[w], Kind.BUILD, self._build_bodies[w])
            self._wait_handshake(group, lambda worker: worker.built)
        assert self._spec is not None
        return self._spec

    def attach(self, action_dtype: torch.dtype, weights_size: int) -> WeightStore:
        """Allocate the block, have the workers map it, and return the store to publish to.

        Raises:
            SharedMemoryError: It does not fit.
        """
        assert self._spec is not None
        rollout, lag = self._config.rollout, self._config.rollout.max_policy_lag
        layout = SlotLayout(self._spec, rollout.steps_per_env, action_dtype)
        ring = WeightStore.nbytes(weights_size, lag)
        plan = BlockPlan(layout, len(self._workers), lag + 1, ring)
        self._memory = self._block.allocate(plan.nbytes)
        self._status = plan.status(self._memory)
        self._slots = [plan.slots(self._memory, w) for w in range(len(self._workers))]
        self._status["heartbeat_ns"] = time.monotonic_ns()
        for worker in self._workers:
            self._say_attach(worker)
        return WeightStore(plan.weights(self._memory), weights_size, lag)

    @property
    def memory(self) -> np.ndarray:
        """The whole shared block, uint8."""
        assert self._memory is not None
        return self._memory

    @property
    def random_start(self) -> list[bool]:
        """Per worker: whether its envs began at random episode times."""
        return self._random_start

    # ---------------------------------------------------------------- pacing

    def grant(self, version: int, iteration: int, save_env_state: bool) -> None:
        """Let every worker collect `iteration` with `version` or newer.

        Args:
            version: The oldest version allowed, published already.
            iteration: k, at most version + L.
            save_env_state: Have the env's state stored with this rollout.
        """
        for worker in self._workers:
            slot = iteration % len(worker.states)
            self._move(worker, slot, SlotState.FREE, SlotState.WRITING)
            body = {"save_env_state": True} if save_env_state else {}
            order = Message(Kind.COLLECT, worker.generation, iteration, version, slot, body)
            worker.granted[iteration] = order
            self._send(worker, order)

    def announce(self, version: int) -> None:
        """Say that `version` is published."""
        self._version = version
        for worker in self._workers:
            self._say(worker, Kind.VERSION, version=version)

    def gather(self, iteration: int) -> list[Slot]:
        """Wait for rollout `iteration` of every worker.

        Returns:
            The slots in worker order; the learner's until `release`.

        Raises:
            WorkerError: A worker failed and may not be replaced.
        """
        while any(iteration not in worker.ready for worker in self._workers):
            self._pump(POLL_S)
        slots = []
        for worker in self._workers:
            index = worker.ready[iteration]
            self._move(worker, index, SlotState.READY, SlotState.TRAINING)
            slots.append(self._slots[worker.index][index])
        return slots

    def release(self, iteration: int) -> None:
        """Give rollout `iteration`'s slots back; the learner has copied what it needs."""
        for worker in self._workers:
            index = worker.ready.pop(iteration)
            self._move(worker, index, SlotState.TRAINING, SlotState.FREE)
            self.counts.consumed += self._rollout_size

    @property
    def _rollout_size(self) -> int:
        assert self._spec is not None
        return self._spec.num_envs * self._config.rollout.steps_per_env

    def _move(self, worker: WorkerHandle, slot: int, old: SlotState, new: SlotState) -> None:
        assert worker.states[slot] is old, f"slot {slot} of worker {worker.index}: {worker.states}"
        worker.states[slot] = new

    # ---------------------------------------------------------------- supervision

    def _pump(self, timeout: float) -> None:
        """Wait for messages or deaths, at most `timeout` seconds, and deal with them."""
        pipes = {w.pipe: w for w in self._workers if not w.closed}
        sentinels = {w.process.sentinel: w for w in self._workers if not w.closed}
        woken = connection.wait([*pipes, *sentinels], timeout)
        for worker in {id(w): w for w in map({**pipes, **sentinels}.get, woken) if w}.values():
            dead = worker.process.sentinel in woken
            for message in self._received(worker):  # a dead one's last words come first, and count
                self._on_message(worker, message)
            replaced = self._workers[worker.index] is not worker
            if dead and not worker.closed and not replaced:
                self._on_death(worker, describe_exit(worker.process))
        self._check_hung()

    def _received(self, worker: WorkerHandle) -> Iterator[Message]:
        """Yield what has come from a worker, without waiting."""
        while True:
            try:
                if not worker.pipe.poll(0):
                    return
                message = Message.receive(worker.pipe)
            except (EOFError, OSError):
                return  # the process is ending; its sentinel says so
            if message.generation == worker.generation:
                yield message

    def _on_message(self, worker: WorkerHandle, message: Message) -> None:
        if message.kind is Kind.READY:
            del worker.granted[message.iteration]
            worker.ready[message.iteration] = message.slot
            self._move(worker, message.slot, SlotState.WRITING, SlotState.READY)
            self.counts.produced += self._rollout_size
        elif message.kind is Kind.DESCRIBED:
            self._description = TaskDescription(**message.body)
            worker.asked = None
        elif message.kind is Kind.BUILT:
            spec = EnvSpec.from_json(message.body["spec"])
            if self._spec is not None and spec != self._spec:
                raise WorkerError(
                    f"worker {worker.index}: its env differs from worker 0's: {spec}, {self._spec}"
                )
            self._spec, worker.built, worker.asked = spec, True, None
            if self._memory is not None:  # a replacement: from here on its heart should beat
                self._status[worker.index]["heartbeat_ns"] = time.monotonic_ns()
            self._random_start[worker.index] = bool(message.body["random_start"])
        elif message.kind is Kind.CLOSED:
            worker.closed = True
        elif message.kind is Kind.ERROR:
            self._on_error(worker, message.body)

    def _on_error(self, worker: WorkerHandle, body: dict[str, Any]) -> None:
        """Raise what a worker reported, as its own class; in `step` obey on_worker_failure."""
        where = f"worker {worker.index}, {body['phase']}, env {body['env']}"
        if body["phase"] == "step" and self._may_restart():
            self._on_death(worker, f"raised: {body['message']}")
            return
        cls = getattr(errors, body["class"], WorkerError) if body["class"] else WorkerError
        if issubclass(cls, errors.ConfigError | errors.MissingDependencyError):
            raise cls(body["message"])  # the user's input, not the worker, is at fault
        # Our own errors say what to do; anything else is told whole.
        detail = "" if body["class"] else f"\n{body['traceback']}"
        raise cls(f"{where}: {body['message']}{detail}")

    def _may_restart(self) -> bool:
        rollout = self._config.rollout
        return rollout.on_worker_failure == "restart" and not rollout.deterministic

    def _on_death(self, worker: WorkerHandle, how: str) -> None:
        """Replace a worker, or stop the run if that is not wanted, or not any more."""
        where = f"worker {worker.index} (generation {worker.generation}) {how}"
        if self._memory is None or not self._may_restart():
            raise WorkerError(f"{where}; see its log in the run directory")
        self._deaths.append(where)
        now, budget = time.monotonic(), self._config.rollout.max_restarts
        self._restart_times = [t for t in self._restart_times if now - t < HOUR_S]
        if len(self._restart_times) >= budget:
            raise WorkerError(
                f"rollout.max_restarts={budget} replacements in an hour are used up: "
                + "; ".join(self._deaths)
            )
        self._restart_times.append(now)
        self._warn(f"{where}; replaced ({len(self._restart_times)} of {budget} in an hour)")
        self._replace(worker)

    def _replace(self, worker: WorkerHandle) -> None:
        """Start a new process in a dead one's place and grant it the unfinished rollouts."""
        kill_group(worker.process)
        worker.pipe.close()
        self.counts.restarts += 1
        if worker.granted:  # else it died between two rollouts
            self._abandon_partial(worker)
        self._status[worker.index] = (0, 0)
        new = self._spawn(worker.index, worker.generation + 1)
        new.ready, new.states = worker.ready, worker.states
        self._workers[worker.index] = new
        self._ask(new, Kind.BUILD, {**self._build_bodies[worker.index], "resume_from": ""})
        self._say_attach(new)
        for iteration, order in sorted(worker.granted.items()):
            order = Message(
                Kind.COLLECT, new.generation, iteration, order.version, order.slot, order.body
            )
            new.granted[iteration] = order
            self._send(new, order)
        self._say(new, Kind.VERSION, version=self._version)

    def _check_hung(self) -> None:
        """Kill what has been silent for too long; its sentinel then reports the death."""
        now, rollout = time.monotonic(), self._config.rollout
        for worker in self._workers:
            if worker.asked is None and self._memory is not None:
                beat = float(self._status[worker.index]["heartbeat_ns"]) / 1e9
                if worker.granted and now - beat > rollout.heartbeat_timeout_s:
                    kill_group(worker.process)
                    self._on_death(
                        worker,
                        f"was silent for {now - beat:.0f} s (heartbeat_timeout_s) and killed",
                    )
            elif worker.asked and now - worker.asked > rollout.startup_timeout_s:
                raise HandshakeTimeoutError(
                    f"worker {worker.index}: no environment after {rollout.startup_timeout_s:g} s; "
                    "raise rollout.startup_timeout_s if it needs longer"
                )

    def _wait_handshake(self, group: Sequence[int], done: Callable[[WorkerHandle], bool]) -> None:
        while not all(done(self._workers[w]) for w in group):
            self._pump(POLL_S)

    # ---------------------------------------------------------------- sending, spawning, closing

    def _spawn(self, index: int, generation: int) -> WorkerHandle:
        process, pipe = spawn_worker(self._block, index, generation)
        return WorkerHandle(index, generation, process, pipe)

    def _ask(self, worker: WorkerHandle, kind: Kind, body: dict[str, Any]) -> None:
        """Ask for something that `rollout.startup_timeout_s` limits."""
        worker.asked = time.monotonic()
        self._say(worker, kind, body=body)

    def _say(self, worker: WorkerHandle, kind: Kind, **fields: Any) -> None:
        self._send(worker, Message(kind, worker.generation, **fields))

    def _send(self, worker: WorkerHandle, message: Message) -> None:
        try:
            message.send(worker.pipe)
        except OSError:
            return  # it has just died: the next `_pump` sees that, with its last words

    def _say_attach(self, worker: WorkerHandle) -> None:
        if not worker.states:
            worker.states = [SlotState.FREE] * (self._config.rollout.max_policy_lag + 1)
        self._say(worker, Kind.ATTACH, body={"name": self._block.name})

    def close(self, grace_s: float = CLOSE_GRACE_S) -> list[str]:
        """End all workers: CLOSE, then SIGTERM, then SIGKILL to their whole groups.

        Args:
            grace_s: Seconds between one step and the next; 0 kills at once.

        Returns:
            One line for each env that did not say CLOSED: an exit code proves nothing, as a
            simulator may end its process with 0 whatever has happened.
        """
        if self._closed:
            return []
        self._closed = True
        for worker in self._workers:
            self._say(worker, Kind.CLOSE)
        deadline = time.monotonic() + grace_s
        for worker in self._workers:
            if worker.built:  # the others have no env to close
                worker.process.join(max(0.0, deadline - time.monotonic()))
        failures = []
        for worker in self._workers:
            if worker.built and worker.process.is_alive():
                worker.process.terminate()
                worker.process.join(grace_s)
            kill_group(worker.process)
            self._settle(worker)
            worker.pipe.close()
            if worker.built and not worker.closed and grace_s:
                how = describe_exit(worker.process)
                failures.append(f"worker {worker.index} did not close its env: it {how}")
        self._block.close()
        return failures

    def _settle(self, worker: WorkerHandle) -> None:
        """Read an ended worker's last messages, and count what the learner will not train on."""
        for message in self._received(worker):
            if message.kind is Kind.READY:
                self._on_message(worker, message)
            worker.closed = worker.closed or message.kind is Kind.CLOSED
        if self._memory is None:
            return
        self.counts.abandoned += self._rollout_size * len(worker.ready)
        if worker.granted:
            self._abandon_partial(worker)

    def _abandon_partial(self, worker: WorkerHandle) -> None:
        """Count the steps of an unfinished rollout; they are never learned from."""
        assert self._spec is not None
        partial = int(self._status[worker.index]["steps"]) * self._spec.num_envs
        self.counts.produced += partial
        self.counts.abandoned += partial
