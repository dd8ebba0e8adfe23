"""Workers that start while their learner imports torch, which takes each of them a second.

Runs in the learner's process, in its main thread, and imports no torch. A worker does nothing until
it is asked, so a run takes these as if it had just started them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from isaac_hydra_ext.config.reading import read
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.loading import configure
from isaac_hydra_ext.envs.registry import facts_of, needs_simulator
from isaac_hydra_ext.errors import IsaacHydraExtError
from isaac_hydra_ext.rollout.processes import check_processes
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.workers import shared_memory
from isaac_hydra_ext.workers.launching import LocalLauncher

_waiting: list[LocalLauncher] = []  # at most one


@contextmanager
def workers_ahead(cfg: DictConfig, typed: Sequence[str]) -> Iterator[None]:
    """Start the workers of the run that follows, if they are processes that simulate on a CPU.

    Not where something is wrong with what is asked: the run says it. Those that no run has taken
    in the end are killed.

    Args:
        cfg: As of `open_run`.
        typed: The user's override tokens.
    """
    try:
        try:
            config = configure(read(cfg, typed))
            if _can_wait(config):
                launcher = LocalLauncher(shared_memory.make_shared_block())
                _waiting.append(launcher)
                launcher.start_ahead(config)
        except (IsaacHydraExtError, OSError):
            _end()
        yield
    finally:
        _end()


def are_waiting(config: RunConfig) -> bool:
    """Return whether this run's workers have been started."""
    local = config.rollout.launcher == "local"
    return bool(_waiting) and local and _waiting[0].num_waiting == config.num_workers


def taken(config: RunConfig) -> LocalLauncher | None:
    """Return the launcher whose workers wait for this run; it is the caller's to close."""
    return _waiting.pop() if are_waiting(config) else None


def _can_wait(config: RunConfig) -> bool:
    """Whether there is nothing to ask before the workers are started.

    Raises:
        IsaacHydraExtError: The env is not there, or no memory for so many workers.
    """
    alone = config.seat.size == 1 and not config.experiment.devices
    ours = config.rollout.source in entry_points.BUILT_IN[entry_points.SOURCES]
    if not (alone and ours and config.num_workers and config.rollout.launcher == "local"):
        return False
    if needs_simulator(config.env) or not facts_of(config.env).is_pure_gym:
        return False
    from isaac_hydra_ext.envs.gym_ids import find_spec

    find_spec(config.env)
    check_processes(config)
    return True


def _end() -> None:
    while _waiting:
        launcher = _waiting.pop()
        launcher.close()
        launcher.block.close()
