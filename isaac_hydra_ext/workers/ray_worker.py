"""One remote worker: its actor, and who listens to it. Runs in the relay, in a thread each."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

import ray
from ray import exceptions

from isaac_hydra_ext.errors import shown
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.far_block import FarBlock
from isaac_hydra_ext.workers.ray_cluster import actor_options, in_words, with_a_cpu
from isaac_hydra_ext.workers.ray_host import Heard, WorkerHost, versions

POLL_S = 0.5  # how often a silent worker shows that it is alive
RETRY_S = 1.0  # before an actor that never ran is asked for again
END_S = 2.0  # for a host to kill its worker, before it is killed itself
TELL_S = 5.0  # of waiting for a node, after which the user is told
Said = tuple[bytes, list[ray.ObjectRef]]  # a message, and what goes with it
as_actor: Any = ray.remote  # its stubs know no groups
HOST = as_actor(concurrency_groups={"say": 1, "hear": 1})(WorkerHost)


class RemoteWorker:
    """One worker's actor, and the thread that listens to it.

    Attributes:
        generation: How many have had its place before.
        versions: Of weights that its node's host has been given.
        far: The learner's block, once attached.
        ended: Nothing more comes from it.
    """

    def __init__(
        self,
        pipe: Connection,
        worker: int,
        generation: int,
        resources: Mapping[str, Any],
    ) -> None:
        """Ask Ray for the actor; what is said to it waits here until it is there."""
        self._pipe, self._worker, self.generation = pipe, worker, generation
        self._resources = resources
        self.versions: set[int] = set()
        self.far: FarBlock | None = None
        self.ended, self._stopped, self._node = False, False, ""
        self._lock, self._said = Lock(), 0
        self._waiting: list[Said] = []
        self._actor = self._ask()
        self._thread = Thread(target=self._listen, daemon=True, name=f"listens to {worker}")
        self._thread.start()

    def _ask(self) -> Any:
        # Ray leaves the GPUs of whoever asks to an actor that has none.
        environment = {} if self._resources.get("num_gpus") else {"CUDA_VISIBLE_DEVICES": ""}
        actor = HOST.options(
            max_restarts=0, scheduling_strategy="SPREAD", **actor_options(self._resources)
        )
        return actor.remote(self._worker, self.generation, environment)

    def say(self, *said: Said) -> None:
        """Pass on what the learner says; what fails shows where we listen."""
        with self._lock:
            self._waiting.extend(said)
            while self._node and self._waiting:
                self._actor.say.remote(self._said, *self._waiting.pop(0))
                self._said += 1

    def end(self) -> None:
        """Kill the worker, if it still lives: from here on nothing is said or written for it."""
        if not self._stopped:
            self._stopped = True
            with contextlib.suppress(exceptions.RayError):  # its helpers, too, if it still answers
                if not self.ended and self._node:
                    ray.get(self._actor.end.remote(), timeout=END_S)
            ray.kill(self._actor)
            self._thread.join(END_S)  # it looks at `_stopped` each POLL_S
            self.ended = True

    def _listen(self) -> None:
        """Pass on what the worker says, and copy its rollouts, until it has ended."""
        try:
            about = self._about()
            if self._is_like_us(about):
                self._node = about["node"]
                self.say()  # what has waited
                while not self.ended and self._hear(self._wait(self._actor.hear.remote(POLL_S))):
                    pass
        except _Stopped:
            return
        except SystemExit:  # Ray's, where the process has lost its node: a thread's is not heard
            os._exit(1)
        except OSError:
            return  # the learner has gone
        except Exception as e:  # of Ray's or ours: nobody else would hear it
            self._tell(Kind.DIED, how=self._how(e))
        finally:
            self.ended = True

    def _wait(self, answer: Any) -> Any:
        """Wait for an answer of the actor, in pieces: somebody may not want it any more."""
        started, told = time.monotonic(), False
        while True:
            try:
                return ray.get(answer, timeout=POLL_S)
            except exceptions.GetTimeoutError:
                if self._stopped:
                    raise _Stopped from None
                if not self._node and not told and time.monotonic() - started > TELL_S:
                    told = True
                    needs = in_words(with_a_cpu(self._resources))
                    self._tell(Kind.DOING, what=f"waits for a node of Ray's with {needs}")

    def _about(self) -> dict[str, str]:
        """Return the actor's first answer; one that never ran is asked for again.

        A cluster that is restarted, or has no room just now, is no fault of the worker's.
        """
        while True:
            try:
                return json.loads(self._wait(self._actor.about.remote()))
            except exceptions.RayActorError as e:
                if e.actor_init_failed:
                    raise
                time.sleep(RETRY_S)
                if self._stopped:
                    raise _Stopped from None
                self._actor = self._ask()

    def _is_like_us(self, about: dict[str, str]) -> bool:
        """Compare versions; a difference is told."""
        ours = versions()
        different = [
            f"{k} {shown(about.get(k))}, here {ours[k]}" for k in ours if about.get(k) != ours[k]
        ]
        if different:
            message = f"worker {self._worker}: node {about['node']} has {'; '.join(different)}"
            body = {"class": "ConfigError", "message": f"{message}; install the same on all nodes"}
            body |= {"traceback": "", "place": "", "phase": "start", "env": ""}
            self._tell(Kind.ERROR, **body)
        return not different

    def _hear(self, heard: Heard) -> bool:
        """Deal with one answer of the host; returns whether there may be more."""
        data, (silent_ns, iteration, steps), rollout = heard
        if self.far is not None:
            status = self.far.status(self._worker)
            status[:] = (time.monotonic_ns() - silent_ns, iteration, steps)
        if not data:
            return True
        message = Message.from_bytes(data)
        if message.kind is Kind.READY:
            assert self.far is not None
            self.far.write_rollout(self._worker, message.slot, rollout)
        if message.kind is Kind.DIED:
            message.body["how"] += f" on node {self._node}"
            self._tell(Kind.DIED, **message.body)
            return False
        self._pipe.send_bytes(data)
        return True

    def _tell(self, kind: Kind, **body: Any) -> None:
        Message(kind, self.generation, body=body).send(self._pipe)

    def _how(self, error: Exception) -> str:
        where = f"node {self._node}" if self._node else "a node of Ray's"
        if isinstance(error, exceptions.RayActorError):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return (
                f"was lost with its actor on {where} ({shown(lines[-1] if lines else error, 200)})"
            )
        if isinstance(error, exceptions.ObjectLostError):
            return f"lost a rollout on its way from {where}"
        return f"failed on {where}: {shown(error, 300)}"


class _Stopped(Exception):
    """Nobody wants to hear of this worker any more."""
