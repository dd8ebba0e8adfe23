"""Which `RolloutSource` a run has. Runs in the learner's process, in its main thread."""

from collections.abc import Callable

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.rollout.in_process import InProcessCollector
from isaac_hydra_ext.rollout.processes import check_processes
from isaac_hydra_ext.rollout.source import RolloutSource
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.ahead import are_waiting
from isaac_hydra_ext.workers.launching import check_launcher
from isaac_hydra_ext.workers.pool import WorkerPool


def make_source(
    config: RunConfig, stop: StopSignals, warn: Callable[[str], None] = print
) -> RolloutSource:
    """Make the source that `rollout.source` names; it starts and builds nothing yet.

    Args:
        config: From `configure`; the source's `build` is given the complete one.
        stop: The user's signals: they end waits that may take minutes.
        warn: Told of whatever goes wrong and is mended, a line each.

    Raises:
        ConfigError: A registered one that cannot be imported, or more workers than there is memory.
        MissingDependencyError: Ray is asked for and not installed.
    """
    name = config.rollout.source
    if name not in entry_points.BUILT_IN[entry_points.SOURCES]:
        return entry_points.load("rollout.source", name, entry_points.SOURCES)(config, stop, warn)
    if config.num_workers:
        check_launcher(config)
        if config.rollout.launcher == "local" and not are_waiting(config):
            check_processes(config)
        return WorkerPool(config, stop, warn)
    return InProcessCollector(config)
