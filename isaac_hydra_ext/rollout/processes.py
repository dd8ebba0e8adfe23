"""Whether a run's processes fit into this machine. Runs in the learner's; imports no torch."""

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.registry import facts_of
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.system.limits import available_memory


def check_processes(config: RunConfig) -> None:
    """Refuse more workers than can be there at all: a machine without memory answers nobody.

    Raises:
        ConfigError: Says what they take and what there is.
    """
    available, ranks = available_memory(), config.seat.local_size
    needed = ranks * config.num_workers * facts_of(config.env).process_bytes
    if available is not None and needed > available:
        raise ConfigError(
            f"rollout.num_workers={config.num_workers}{each_of(ranks)}: the processes alone take "
            f"{needed / 2**30:,.1f} GiB, available are {available / 2**30:,.1f} GiB; lower it (a "
            "core can run one or two)"
        )


def each_of(ranks: int) -> str:
    """Say that a number is of each rank, where this node has several."""
    return f" for each of {ranks} ranks" if ranks > 1 else ""
