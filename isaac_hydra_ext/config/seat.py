"""Which of the processes that learn together this one is, its rank.

Runs in each of them, before it starts anything. They are told by torchrun's variables; those that
the first one starts itself, for `experiment.devices`, get the same ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from isaac_hydra_ext.errors import ConfigError, shown

OURS = "APPO_STARTED_RANK"  # set where the first rank has started this one
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


@dataclass(frozen=True)
class Seat:
    """The place of a rank.

    Attributes:
        rank: From 0.
        size: How many ranks there are.
        local_rank: Of those on this node, from 0.
        local_size: How many ranks are on this node.
        host: Where the ranks find each other; empty: this one starts the others.
        port: There.
        agent: Something that outlives the ranks holds what they tell each other: torchrun.
        attempt: How often torchrun has started them all anew.
        named: (section, knob, value) as they were for all ranks, of knobs that differ among them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host: str = ""
    port: int = 0
    agent: bool = False
    attempt: int = 0
    named: tuple[tuple[str, str, str], ...] = ()

    def variables(self, rank: int, port: int) -> dict[str, str]:
        """Return the environment variables by which a rank that this one starts knows its seat."""
        return {
            "RANK": str(rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(self.size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            OURS: "1",
        }


def launched_seat(environ: Mapping[str, str]) -> Seat | None:
    """Return the seat of a process that torchrun (or the first rank) has started; None if none has.

    A cluster's own variables say RANK and WORLD_SIZE of machines, without LOCAL_RANK.

    Raises:
        ConfigError: The variables make no sense.
    """
    if "RANK" not in environ or "LOCAL_RANK" not in environ:
        return None
    numbers = {"LOCAL_WORLD_SIZE": environ.get("WORLD_SIZE", ""), **environ}
    for name in NUMBERS:
        if not numbers.get(name, "").isdecimal():
            raise ConfigError(
                f"{name}={shown(numbers.get(name, ''))}: a number is expected beside RANK, as "
                "torchrun sets it"
            )
    rank, size, local_rank, local_size, port = (int(numbers[name]) for name in NUMBERS)
    if not (rank < size and local_rank < local_size <= size):
        raise ConfigError(
            f"RANK={rank}: with WORLD_SIZE={size}, LOCAL_RANK={local_rank} and LOCAL_WORLD_SIZE="
            f"{local_size} this is no rank; torchrun sets all of them"
        )
    if size == 1:
        return None
    attempt = environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Seat(
        rank,
        size,
        local_rank,
        local_size,
        host=environ.get("MASTER_ADDR", "127.0.0.1"),
        port=port,
        agent=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(attempt) if attempt.isdecimal() else 0,
    )
