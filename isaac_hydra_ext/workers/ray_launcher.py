"""Workers on Ray, for the pool: each is a pipe to the relay, which hosts them all.

Runs in the learner's process, in its main thread; imports no Ray. A relay that dies takes its
workers along, as a machine would, and the next worker that is started starts another relay.
"""

import contextlib
import json
import os
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.handle import Hosted
from isaac_hydra_ext.workers.shared_memory import SharedBlock
from isaac_hydra_ext.workers.spawning import spawn

CONNECT_S = 60.0  # for a cluster to let us in
KILL_S = 10.0  # for the relay to end a worker, before it is killed itself
POLL_S = 0.2


def relay_main(control: Connection, *arguments: Any) -> None:
    """Entry point of the spawned relay, which alone imports Ray."""
    from isaac_hydra_ext.workers.ray_relay import relay

    relay(control, *arguments)


class RayLauncher:
    """The launcher of `rollout.launcher=ray`."""

    def __init__(self, config: RunConfig, block: SharedBlock, stop: StopSignals) -> None:
        """Start nothing yet."""
        self._config, self._block, self._stop = config, block, stop
        self._relays: list[RelayProcess] = []

    def open(self, notes: list[str]) -> None:
        """Join the cluster, and see whether it has room."""
        relay = self._start_relay()
        deadline = time.monotonic() + CONNECT_S
        answer: dict[str, str] | None = None
        while answer is None:
            self._stop.raise_if_requested()
            answer = relay.answer(POLL_S)
            if relay.process.ended and answer is None:
                answer = {"error": f"{self._where}: the relay {relay.process.describe_exit()}"}
            if time.monotonic() > deadline and answer is None:
                answer = {"error": f"{self._where}: no answer within {CONNECT_S:g} s"}
        if "error" in answer:
            raise ConfigError(answer["error"])
        notes.append(answer["note"])

    def start(self, config: RunConfig, worker: int, generation: int) -> tuple[Hosted, Connection]:
        """Start one worker on a node that has room; see `Launcher`."""
        if self._relays[-1].process.ended:
            self._start_relay()
        relay = self._relays[-1]
        relay.order("start", worker, generation)
        # Its own end of a pipe that outlives it: the relay tells whose word it is by generation.
        pipe = Connection(os.dup(relay.pipes[worker].fileno()))
        return RemoteProcess(relay, worker, generation), pipe

    def close(self) -> None:
        """End the relay: its workers have ended, and it has, unless one of them would not."""
        for relay in self._relays:
            relay.process.kill()
            relay.close()

    @property
    def _where(self) -> str:
        return f"ray.address={self._config.ray.address}"

    def _start_relay(self) -> "RelayProcess":
        ray = self._config.ray
        settings = {"address": ray.address, "resources": ray.worker_resources}
        settings["first"] = not self._relays
        relay = RelayProcess(self._block, self._config.num_workers, settings)
        self._relays.append(relay)
        return relay


class RelayProcess:
    """The relay's process, and our ends of its pipes."""

    def __init__(self, block: SharedBlock, workers: int, settings: dict[str, Any]) -> None:
        """Start it; `settings` are those of `ray_relay.relay`."""
        both = [Pipe() for _ in range(workers)]
        self.pipes, theirs = [ours for ours, _ in both], [theirs for _, theirs in both]
        arguments = (block, theirs, json.dumps(settings), os.getpid())
        self.process, self._control = spawn(relay_main, arguments, "appo-relay")
        for pipe in theirs:
            pipe.close()

    def answer(self, patience_s: float) -> dict[str, Any] | None:
        """Return what it answers to an order, or how it has begun; None if it does not in time."""
        with contextlib.suppress(EOFError, OSError):
            if self._control.poll(patience_s):
                return json.loads(self._control.recv_bytes())
        return None

    def order(self, what: str, worker: int, generation: int) -> None:
        """Have it start or end a worker; one that has just died tells by its sentinel."""
        order = {"do": what, "worker": worker, "generation": generation}
        with contextlib.suppress(OSError):
            self._control.send_bytes(json.dumps(order).encode())

    def close(self) -> None:
        """Let go of one that has ended."""
        self._control.close()
        for pipe in self.pipes:
            pipe.close()
        self.process.close()


class RemoteProcess:
    """A worker's process on another node, as far as we have a hand in it."""

    def __init__(self, relay: RelayProcess, worker: int, generation: int) -> None:
        """Stand for the worker that `relay` has been told to start."""
        self._relay, self._worker, self._generation = relay, worker, generation
        self._killed = False
        self.pid = None

    @property
    def sentinel(self) -> int:
        """The relay's: with it all are gone. The end of a worker alone is a message, DIED."""
        return self._relay.process.sentinel

    def terminate(self) -> None:
        """Kill: whoever would not close its env in time is not asked twice over a network."""
        self.kill()

    def kill(self) -> None:
        """Have the relay end the worker, and wait until it has; see `Hosted`."""
        if self._killed or self._relay.process.ended:
            return
        self._killed = True
        self._relay.order("end", self._worker, self._generation)
        deadline = time.monotonic() + KILL_S
        while (answer := self._relay.answer(POLL_S)) != {} and time.monotonic() < deadline:
            if answer is None and self._relay.process.ended:
                return
        if answer != {}:
            self._relay.process.kill()

    def describe_exit(self) -> str:
        """Return how it ended, as far as we know."""
        if self._relay.process.ended:
            return f"was lost with the relay, which {self._relay.process.describe_exit()}"
        return "was killed with its actor"

    def close(self) -> None:
        """The relay lives on."""
