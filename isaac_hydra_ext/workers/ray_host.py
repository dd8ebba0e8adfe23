"""The actor that hosts a remote worker. Runs in one of Ray's processes, on any node.

The worker is a process of its own there, started and spoken to as on the learner's machine: over a
pipe, beside a block of memory. The host is the learner's hand: it says what the learner says, puts
published weights into the block, and hands messages and finished rollouts back. It imports no
torch, so that it is there in no time.
"""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from multiprocessing import connection

import numpy as np
import ray
from ray.exceptions import RayError

from isaac_hydra_ext import __version__
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.entry import worker_entry
from isaac_hydra_ext.workers.far_block import BlockNumbers, FarBlock
from isaac_hydra_ext.workers.shared_memory import make_shared_block
from isaac_hydra_ext.workers.spawning import spawn

GIVEN_S = 60.0  # for what is in the store to reach a node
Heard = tuple[bytes, tuple[int, int, int], list[np.ndarray]]


def versions() -> dict[str, str]:
    """Return what must be the same on all nodes; Ray itself compares Ray and Python."""
    return {"isaac_hydra_ext": __version__, "torch": version("torch")}


class WorkerHost:
    """One remote worker; Ray calls `say` and `hear` in a thread each."""

    def __init__(self, worker: int, generation: int, environment: Mapping[str, str]) -> None:
        """Start the worker's process; in the main thread, whose end would be the process's.

        Args:
            worker: Its index.
            generation: How many have had its place before.
            environment: Variables that it has instead of the host's.
        """
        self._worker, self._generation = worker, generation
        self._block = make_shared_block()
        self._far: FarBlock | None = None
        self._early: dict[int, tuple[bytes, Sequence[ray.ObjectRef]]] = {}  # said out of order
        self._said, self._lost = 0, ""
        arguments = (self._block, worker, generation, os.getpid())
        name = f"appo-worker-{worker}"
        self._process, self._pipe = spawn(worker_entry, arguments, name, environment)

    @ray.method(concurrency_group="say")
    def about(self) -> bytes:
        """Return this node's versions and name, as JSON."""
        return json.dumps({**versions(), "node": platform.node()}).encode()

    @ray.method(concurrency_group="say")
    def say(self, number: int, data: bytes, beside: Sequence[ray.ObjectRef]) -> None:
        """Tell the worker something.

        Args:
            number: 0, 1, ...: Ray may call out of order.
            data: A message of the learner's.
            beside: A reference to what its block holds for it, uint8, if that is news here: weights
                of its version, or the env's state that BUILD speaks of.
        """
        self._early[number] = (data, beside)
        while (following := self._early.pop(self._said, None)) is not None:
            self._said += 1
            try:
                self._deliver(*following)
            except RayError as e:  # nobody waits for our answer: `hear` tells
                self._lost = f"was killed, as what it needs did not arrive ({type(e).__name__})"
                self._process.kill()

    def _deliver(self, data: bytes, beside: Sequence[ray.ObjectRef]) -> None:
        message = Message.from_bytes(data)
        # Once a node: the store is the node's.
        given = [ray.get(reference, timeout=GIVEN_S) for reference in beside]
        if message.kind is Kind.ATTACH:
            numbers = BlockNumbers.from_json(message.body["numbers"])
            self._far = FarBlock(numbers, self._block.allocate(numbers.nbytes))
            self._far.status(self._worker)[:] = (time.monotonic_ns(), -1, 0)
            body = {"name": self._block.name}
            data = Message(Kind.ATTACH, self._generation, body=body).to_bytes()
        elif message.kind is Kind.BUILD and given:
            self._block.allocate(given[0].nbytes)[:] = given[0]
            place = {"name": self._block.name, "begin": 0, "end": given[0].nbytes}
            body = {**message.body, "env_state": place}
            data = Message(Kind.BUILD, self._generation, body=body).to_bytes()
        elif given:
            assert self._far is not None
            self._far.write_weights(message.version, given[0])
        try:
            self._pipe.send_bytes(data)
        except OSError:
            return  # it has ended, as `hear` tells

    @ray.method(concurrency_group="hear")
    def hear(self, patience_s: float) -> Heard:
        """Wait for what the worker says next.

        Args:
            patience_s: For how long [s]; nothing is then said, and the status is news.

        Returns:
            A message or nothing; how long ago its heart beat [ns], its iteration and its steps; and
            the parts of the rollout, where the message is READY.
        """
        connection.wait([self._pipe, self._process.sentinel], patience_s)
        ended = self._process.ended  # in this order: last words count
        data = self._next()
        if not data and ended:
            body = {"how": self._lost or self._process.describe_exit()}
            data = Message(Kind.DIED, self._generation, body=body).to_bytes()
        rollout = []
        if data and (message := Message.from_bytes(data)).kind is Kind.READY:
            assert self._far is not None
            rollout = self._far.rollout(self._worker, message.slot)
        return data, self._status(), rollout

    def _next(self) -> bytes:
        try:
            return self._pipe.recv_bytes() if self._pipe.poll(0) else b""
        except (EOFError, OSError):
            return b""

    def _status(self) -> tuple[int, int, int]:
        if self._far is None:
            return 0, -1, 0
        beat_ns, iteration, steps = (int(x) for x in self._far.status(self._worker))
        return time.monotonic_ns() - beat_ns, iteration, steps

    @ray.method(concurrency_group="say")
    def end(self) -> None:
        """Kill the worker and whatever it has started."""
        self._process.kill()
