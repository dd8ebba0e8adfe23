"""How a worker is started: as a process of this machine, or on Ray.

Runs in the learner's process, in its main thread.
"""

import importlib.util
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Protocol

from isaac_hydra_ext.config.placement import worker_environment
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.registry import auto_is_gpu
from isaac_hydra_ext.errors import MissingDependencyError
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.entry import worker_entry
from isaac_hydra_ext.workers.handle import Hosted
from isaac_hydra_ext.workers.shared_memory import SharedBlock
from isaac_hydra_ext.workers.spawning import LocalProcess, spawn


class Launcher(Protocol):
    """Starts the workers of a pool."""

    def open(self, notes: list[str]) -> None:
        """Look whether workers can be started at all, before the first one is.

        Args:
            notes: Lines for the user are added.

        Raises:
            IsaacHydraExtError: They cannot.
            RunInterrupted: A signal has come meanwhile.
        """
        ...

    def start(self, config: RunConfig, worker: int, generation: int) -> tuple[Hosted, Connection]:
        """Start one worker; returns where it lives, and the learner's end of its pipe.

        Raises:
            OSError: The system refuses one more.
        """
        ...

    def close(self) -> None:
        """End what was started beside the workers, which have ended."""
        ...


class LocalLauncher:
    """A process of this machine for each worker."""

    def __init__(self, block: SharedBlock) -> None:
        """Hand `block` to each worker."""
        self.block = block
        self._waiting: dict[int, tuple[Hosted, Connection]] = {}

    @property
    def num_waiting(self) -> int:
        """How many have been started ahead and not been asked for yet."""
        return len(self._waiting)

    def start_ahead(self, config: RunConfig) -> None:
        """Start the first generation, for `start` to give out.

        Raises:
            OSError: The system refuses one more.
        """
        for worker in range(config.num_workers):
            self._waiting[worker] = self.start(config, worker, 0)

    def open(self, notes: list[str]) -> None:
        """Start nothing beside the workers."""

    def start(self, config: RunConfig, worker: int, generation: int) -> tuple[Hosted, Connection]:
        """Start one, unless it waits already; see `Launcher`."""
        if generation == 0 and worker in self._waiting:
            return self._waiting.pop(worker)
        environment = worker_environment(config, worker, auto_is_gpu(config.env))
        return spawn_worker(self.block, worker, generation, environment)

    def close(self) -> None:
        """End those that wait; there is nothing else beside the workers."""
        for process, pipe in self._waiting.values():
            process.kill()
            process.close()
            pipe.close()
        self._waiting.clear()


def spawn_worker(
    block: SharedBlock, worker: int, generation: int, environment: Mapping[str, str]
) -> tuple[LocalProcess, Connection]:
    """Start one worker; returns its process and the learner's end of its pipe."""
    arguments = (block, worker, generation, os.getpid())
    return spawn(worker_entry, arguments, f"appo-worker-{worker}", environment)


def check_launcher(config: RunConfig) -> None:
    """Refuse a launcher whose package is not installed.

    Raises:
        MissingDependencyError: Says how to install it.
    """
    if config.rollout.launcher == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingDependencyError(
            "rollout.launcher=ray: Ray is not installed; install it with: "
            "pip install 'isaac-hydra-ext[ray]'"
        )


def make_launcher(config: RunConfig, block: SharedBlock, stop: StopSignals) -> Launcher:
    """Make the launcher that `rollout.launcher` names; it starts nothing yet."""
    if config.rollout.launcher == "local":
        return LocalLauncher(block)
    from isaac_hydra_ext.workers.ray_launcher import RayLauncher

    return RayLauncher(config, block, stop)
