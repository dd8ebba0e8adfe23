"""A worker process: builds its env, then collects one rollout after another until told to close.

Everything here runs in the worker. It obeys the learner's messages, writes only into slots it was
given, and dies with its parent.
"""

import contextlib
import time
from collections import deque
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from isaac_hydra_ext.config.schema import EnvConfig, RunConfig
from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.envs.registry import describe_task
from isaac_hydra_ext.rollout.collector import Collector
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore, version_for
from isaac_hydra_ext.system.activity import listen
from isaac_hydra_ext.workers.block import BlockPlan
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.child import (
    become_child,
    error_body,
    pin,
    redirect_output,
    serve,
)
from isaac_hydra_ext.workers.shared_memory import SharedBlock, register_with_cuda

if TYPE_CHECKING:
    from isaac_hydra_ext.system.tracing import Tracer

POLL_S = 1.0  # how long a wait lasts before the worker shows that it is alive


def worker_main(
    pipe: Connection, block: SharedBlock, worker: int, generation: int, parent_pid: int
) -> None:
    """Entry point of the spawned process; returns when the run is over.

    Args:
        pipe: To the learner.
        block: Still empty; ATTACH says its size.
        worker: Index of this worker.
        generation: How many processes have had this worker's place before.
        parent_pid: The learner's process.
    """
    become_child(parent_pid)
    process = WorkerProcess(pipe, block, worker, generation)
    listen(process.tell)
    serve(process.run, process.report)


class WorkerProcess:
    """The worker's side of the protocol in `channel.py`."""

    def __init__(self, pipe: Connection, block: SharedBlock, worker: int, generation: int) -> None:
        """Know where to report; nothing is built yet."""
        self._pipe, self._block = pipe, block
        self._worker, self._generation = worker, generation
        self._phase = "start"
        self._env_name = ""
        self._status = None  # our record in the block, once attached
        self._pending: deque[Message] = deque()  # rollouts we may collect, oldest first
        self._version = 0  # the newest published
        self._collector: Collector | None = None
        self._on_gpu: Slot | None = None  # where a simulation on a GPU writes its rollouts
        self._tracer: Tracer | None = None

    def run(self) -> None:
        """Serve the handshake, then collect until CLOSE."""
        handlers = {
            Kind.DESCRIBE: self._describe,
            Kind.BUILD: self._build,
            Kind.ATTACH: self._attach,
            Kind.COLLECT: self._pending.append,
            Kind.VERSION: lambda message: None,  # `_next` has read it
        }
        idle_since = time.monotonic()
        while True:
            # Hear everything before collecting: there may be newer weights, or it may be over.
            if not self._pending or self._pipe.poll(0):
                message = self._next()
                if message.kind is Kind.CLOSE:
                    self._close()
                    return
                handlers[message.kind](message)
                if message.kind is Kind.ATTACH:
                    idle_since = time.monotonic()
            else:
                self._collect(self._pending.popleft(), time.monotonic() - idle_since)
                idle_since = time.monotonic()

    def report(self, error: Exception) -> None:
        """Tell the learner what went wrong and where."""
        self._send(Kind.ERROR, body=error_body(error, self._phase, self._env_name))

    def tell(self, what: str) -> None:
        """Tell the learner what takes so long."""
        self._send(Kind.DOING, body={"what": what})

    def _send(self, kind: Kind, **fields: object) -> None:
        Message(kind, self._generation, **fields).send(self._pipe)  # type: ignore[arg-type]

    def _next(self) -> Message:
        while not self._pipe.poll(POLL_S):
            self._beat()
        message = Message.receive(self._pipe)
        self._version = max(self._version, message.version)
        return message

    def _beat(self, steps: int | None = None) -> None:
        if self._status is not None:
            self._status["heartbeat_ns"] = time.monotonic_ns()
            if steps is not None:
                self._status["steps"] = steps

    def _describe(self, message: Message) -> None:
        self._phase = "describe"
        env_config = EnvConfig(**message.body["env"])
        self._env_name = str(env_config.id or env_config.task)
        self._send(Kind.DESCRIBED, body=asdict(describe_task(env_config, message.body["device"])))

    def _build(self, message: Message) -> None:
        self._phase = "build"
        config = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(RunConfig), message.body["config"])
        )
        assert isinstance(config, RunConfig)
        config.seat = Seat(message.body["rank"])
        self._config = config
        self._env_name = str(config.env.id or config.env.task)
        pin(message.body["core"])  # before the env starts threads, which then stay there too
        run_dir = Path(message.body["run_dir"])
        no_log = redirect_output(run_dir / "workers" / f"worker_{self._worker}.log")
        self._tracer = self._make_tracer(run_dir)
        env_state = None
        if (place := message.body.get("env_state")) is not None:  # of a resumed run
            from isaac_hydra_ext.workers.env_states import read_env_state

            env_state = read_env_state(self._block, place)
        self._collector = Collector(
            config, self._worker, self._generation, run_dir, env_state, message.body["first"]
        )
        spec = self._collector.env.spec.to_json()
        body = {"spec": spec, "random_start": self._collector.random_start}
        body["notes"] = [*filter(None, [no_log]), *getattr(self._collector.env, "notes", [])]
        self._send(Kind.BUILT, body=body)

    # What few runs need is imported by these only: W processes pay for every module.

    def _make_tracer(self, run_dir: Path) -> "Tracer | None":
        config = self._config
        if not config.logging.profile:
            return None
        from isaac_hydra_ext.system.tracing import Tracer

        return Tracer(
            config.logging.profile,
            config.experiment.max_iterations,
            run_dir,
            f"worker_{self._worker}",
            config.rollout.device.startswith("cuda"),
            lambda line: print(line, flush=True),
        )

    def _attach(self, message: Message) -> None:
        assert self._collector is not None
        rollout, policy = self._config.rollout, self._collector.policy
        layout = SlotLayout.of(self._collector.env.spec, rollout.steps_per_env, policy)
        size, lag = policy.flat.numel(), rollout.max_policy_lag
        plan = BlockPlan(layout, self._config.num_workers, lag + 1, WeightStore.nbytes(size, lag))
        memory = self._block.attach(message.body["name"], plan.nbytes)
        self._status = plan.status(memory)[self._worker : self._worker + 1]
        self._slots = plan.slots(memory, self._worker)
        if self._collector.device.type == "cuda":
            # A rollout leaves the GPU whole: its steps then wait for no copy.
            copied = plan.copied(memory, [self._worker])
            if not register_with_cuda(copied, self._collector.device):
                print("the slots cannot be pinned for CUDA: copies are slower", flush=True)
            self._on_gpu = Slot.allocate(layout, str(self._collector.device))
            self._collector.acting_on(self._on_gpu)
        self._weights = WeightStore.map(plan.weights(memory), size, lag)

    def _collect(self, order: Message, waited: float) -> None:
        """Collect one rollout with the newest weights its order allows."""
        assert self._collector is not None
        self._phase = "step"
        deterministic = self._config.rollout.deterministic
        version = version_for(order.iteration, order.version, self._version, deterministic)
        self._weights.load(version, self._collector.policy.flat)
        slot = self._slots[order.slot]
        save = bool(order.body.get("save_env_state"))
        assert self._status is not None
        self._status["steps"] = 0
        self._status["iteration"] = order.iteration
        target = self._on_gpu or slot
        tracer = self._tracer
        with tracer.around(order.iteration) if tracer else contextlib.nullcontext():
            self._collector.collect(target, order.iteration, version, self._beat, waited, save)
            if self._on_gpu is not None:
                slot.copy_from(self._on_gpu)
            self._send(Kind.READY, iteration=order.iteration, version=version, slot=order.slot)
            if tracer and tracer.writes_after(
                order.iteration
            ):  # minutes, if it is long: no silence
                grace_s = self._config.rollout.startup_timeout_s
                self._status["heartbeat_ns"] = time.monotonic_ns() + int(grace_s * 1e9)
        self._beat()

    def _close(self) -> None:
        self._phase = "close"
        if self._collector is not None:
            self._collector.env.close()
        self._send(Kind.CLOSED)
