"""The relay of remote workers. Runs in a process of its own, beside the learner.

To the pool it is the workers: a pipe for each, and slots that are filled when READY comes. Ray
lives here and not with the learner, because a cluster that is lost ends the processes that joined
it. The main thread passes on what the learner says; what workers say is `ray_worker.py`'s.
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray

from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.child import become_child, redirect_output
from isaac_hydra_ext.workers.far_block import BlockNumbers, FarBlock
from isaac_hydra_ext.workers.ray_cluster import check_room, join
from isaac_hydra_ext.workers.ray_worker import RemoteWorker
from isaac_hydra_ext.workers.shared_memory import SharedBlock

POLL_S = 0.1  # how soon the end of all workers is seen
RETRY_S = 1.0  # between two tries to join a cluster that has been there before


def relay(
    control: Connection,
    block: SharedBlock,
    pipes: Sequence[Connection],
    settings: str,
    parent_pid: int,
) -> None:
    """Serve the learner; the whole life of the spawned process.

    Args:
        control: To `ray_launcher.py`, which starts and ends workers through it.
        block: Of the learner; ATTACH says its size.
        pipes: A worker's end of each pipe.
        settings: JSON: `address`, `resources`, and whether this is the `first` relay of the run.
        parent_pid: The learner's process.
    """
    become_child(parent_pid)
    told = json.loads(settings)
    answer = _join(told, len(pipes))
    control.send_bytes(json.dumps(answer).encode())
    if "error" not in answer:
        Relay(control, block, pipes, told["resources"]).run()


def _join(told: Mapping[str, Any], workers: int) -> dict[str, str]:
    """Join the cluster; one that was there when the run began is waited for."""
    while True:
        try:
            note = join(told["address"])
            if told["first"]:
                check_room("rollout.num_workers", workers, told["resources"])
            return {"note": note}
        except ConfigError as e:
            if told["first"]:
                return {"error": str(e)}
            time.sleep(RETRY_S)  # the pool's patience ends this, with this process


class Relay:
    """All remote workers of a run."""

    def __init__(
        self,
        control: Connection,
        block: SharedBlock,
        pipes: Sequence[Connection],
        resources: Mapping[str, Any],
    ) -> None:
        """Host nobody yet; see `relay`."""
        self._control, self._block, self._pipes = control, block, pipes
        self._resources = resources
        self._hosts: dict[int, RemoteWorker] = {}
        self._far: FarBlock | None = None
        self._weights: dict[int, ray.ObjectRef] = {}  # by version, as long as the ring has it
        self._closing = self._has_log = False

    def run(self) -> None:
        """Serve until all workers have closed, or the learner is gone."""
        places = {pipe: worker for worker, pipe in enumerate(self._pipes)}
        with contextlib.suppress(EOFError):
            while not (self._closing and all(host.ended for host in self._hosts.values())):
                ready = connection.wait([self._control, *places], POLL_S)
                if self._control in ready:  # first: a pipe's next words may be to a new worker
                    self._obey(json.loads(self._control.recv_bytes()))
                    continue
                for pipe in ready:
                    assert isinstance(pipe, Connection)
                    self._pass_on(places[pipe], pipe.recv_bytes())
        for host in self._hosts.values():
            host.end()
        ray.shutdown()

    def _obey(self, order: dict[str, Any]) -> None:
        worker, generation = order["worker"], order["generation"]
        if worker in self._hosts:
            self._hosts[worker].end()
        if order["do"] == "start":
            self._hosts[worker] = RemoteWorker(
                self._pipes[worker], worker, generation, self._resources
            )
        else:
            self._control.send_bytes(b"{}")

    def _pass_on(self, worker: int, data: bytes) -> None:
        message = Message.from_bytes(data)
        host = self._hosts.get(worker)
        if host is None or host.generation != message.generation:
            return
        self._closing = self._closing or message.kind is Kind.CLOSE
        if message.kind is Kind.BUILD and not self._has_log:  # Ray tells of lost nodes at length
            redirect_output(Path(message.body["run_dir"]) / "workers" / "relay.log")
            self._has_log = True
        if message.kind is Kind.ATTACH:
            if self._far is None:
                numbers = BlockNumbers.from_json(message.body["numbers"])
                memory = self._block.attach(message.body["name"], numbers.nbytes)
                self._far = FarBlock(numbers, memory)
            host.far = self._far
        host.say((data, self._beside(message, host)))

    def _beside(self, message: Message, host: RemoteWorker) -> list[ray.ObjectRef]:
        """Return what the learner's block holds for a message, in Ray's store."""
        if message.kind is Kind.BUILD and (place := message.body.get("env_state")):
            memory = self._block.attach(place["name"], place["end"])
            return [ray.put(memory[place["begin"] :])]
        if message.kind not in (Kind.VERSION, Kind.COLLECT) or message.version in host.versions:
            return []
        weights = self._weights_of(message.version)
        if weights and self._far is not None:
            oldest = message.version - self._far.versions_kept
            host.versions = {v for v in host.versions if v > oldest} | {message.version}
        return weights

    def _weights_of(self, version: int) -> list[ray.ObjectRef]:
        """Return a version in Ray's store, put there once for all nodes and workers."""
        assert self._far is not None
        if version not in self._weights:
            flat = self._far.weights(version)
            if flat is None:
                return []
            self._weights[version] = ray.put(flat)  # the pacing keeps the ring's row until then
            for old in sorted(self._weights)[: -self._far.versions_kept]:
                del self._weights[old]
        return [self._weights[version]]
