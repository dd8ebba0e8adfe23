"""Which core each CPU worker has to itself. Runs in the learner's process; `child.pin` in workers.

Two runs on one machine must not pin to the same core while others idle, so a run claims its cores:
a claim is an abstract socket's name (Linux), which the kernel frees with the process, however that
ends. Containers with networks of their own do not see each other's names: give each its own cores
(`docker run --cpuset-cpus`), or set rollout.pin_cores=false.
"""

import contextlib
import os
import socket
import sys
from pathlib import Path

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.registry import facts_of

TOPOLOGY = Path("/sys/devices/system/cpu")
CLAIM = "isaac_hydra_ext.core"


class WorkerCores:
    """The cores of one run's workers.

    Attributes:
        cores: One for each worker; empty if they are not pinned.
        note: What was done, or why not, for the user.
    """

    def __init__(self, config: RunConfig) -> None:
        """Claim a core for each worker, and leave the others to the learner; or do nothing.

        Args:
            config: After `complete`.
        """
        self._claims: list[socket.socket] = []
        self._before: set[int] = set()
        self.cores: list[int] = []
        why_not = _why_not(config) or self._claim(config.num_workers) or self._leave()
        left = len(self._before) - len(self.cores)
        self.note = (
            f"workers are not pinned to cores: {why_not}"
            if why_not
            else f"workers are pinned to cores {str(self.cores)[1:-1]}; the learner has {left}"
        )

    def _claim(self, workers: int) -> str:
        """Claim one core a worker; returns why that was not possible."""
        self._before = os.sched_getaffinity(0)
        for core in one_of_each_pair_first(self._before):
            if len(self.cores) < workers and (claim := _take(core)) is not None:
                self._claims.append(claim)
                self.cores.append(core)
        if len(self.cores) == workers:
            return ""
        free = len(self.cores)
        self.release()
        return f"other runs have taken all but {free} of {len(self._before)} cores"

    def _leave(self) -> str:
        """Have the learner leave the claimed cores; returns why that was not possible."""
        try:
            os.sched_setaffinity(0, self._before - set(self.cores))
        except OSError as e:  # a sandbox may forbid it
            self.release()
            return f"not allowed ({e})"
        return ""

    def of(self, worker: int) -> int | None:
        """Return a worker's core, None if it has none."""
        return self.cores[worker] if self.cores else None

    def release(self) -> None:
        """Give the cores back, and the learner those that it had."""
        if self.cores:
            os.sched_setaffinity(0, self._before)
        self.cores = []
        while self._claims:
            self._claims.pop().close()


def _why_not(config: RunConfig) -> str:
    """Return why this run's workers should not be pinned, or nothing."""
    rollout, facts = config.rollout, facts_of(config.env)
    if not rollout.pin_cores:
        return "rollout.pin_cores=false"
    if rollout.launcher == "ray":
        return "Ray places them"
    if sys.platform != "linux":
        return "that is for Linux"
    if rollout.device != "cpu":
        return f"the simulation is on {rollout.device}"
    if facts.has_own_threads:
        return f"{facts.name} has threads of its own"
    cores, needed = len(os.sched_getaffinity(0)), config.num_workers + 1
    if cores < needed:
        return f"{config.num_workers} and the learner are more than the {cores} cores there are"
    return ""


def _take(core: int) -> socket.socket | None:
    """Take a core for this process's life; None if another process has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0{CLAIM}.{core}")
    except OSError:
        claim.close()
        return None
    return claim


def one_of_each_pair_first(cores: set[int]) -> list[int]:
    """Sort logical cores so that those of one physical core are far apart."""
    seen: dict[str, int] = {}
    rank = {}
    for core in sorted(cores):
        siblings = str(core)
        with contextlib.suppress(OSError):  # not every container shows them
            path = TOPOLOGY / f"cpu{core}" / "topology" / "thread_siblings_list"
            siblings = path.read_text().strip()
        seen[siblings] = seen.get(siblings, -1) + 1
        rank[core] = seen[siblings]
    return sorted(cores, key=lambda core: (rank[core], core))
