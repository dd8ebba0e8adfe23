"""Every error that a user can cause, and the exit code it ends the program with.

A message is one line: what is wrong, where (config key, worker, env index), what to do about it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

MAX_SHOWN = 100  # characters of a value in a message
LIST_EXPECTED = "a list is expected here, in brackets: [A,B]"


class IsaacHydraExtError(Exception):
    """Base class. `exit_code` is what the command line returns for it."""

    exit_code = 1


class ConfigError(IsaacHydraExtError):
    """A value or key in the configuration is wrong. Raised before any process starts."""

    exit_code = 2


class EnvNotFoundError(ConfigError):
    """The environment id or task is not registered."""


class EnvError(IsaacHydraExtError):
    """The environment raised, or broke the contract in `envs/contract.py`."""


class EnvContractError(EnvError):
    """A step gave something of another shape or dtype than was promised; a new worker's would, too.

    So none is started.
    """


class InvalidNumberError(EnvError):
    """An observation, action or reward was NaN or Inf; `rollout.on_invalid` says what follows."""


class MissingDependencyError(IsaacHydraExtError):
    """An optional package is needed and not installed."""

    exit_code = 2


class RenderError(IsaacHydraExtError):
    """An environment gives no pictures here; the message says why, and what to install or set."""


class WorkerError(IsaacHydraExtError):
    """A worker process raised, died, hung, or broke the protocol."""


class HandshakeTimeoutError(WorkerError):
    """A worker did not build its environment within `rollout.startup_timeout_s`."""


class SharedMemoryError(IsaacHydraExtError):
    """The shared rollout buffer could not be made."""


class CheckpointError(IsaacHydraExtError):
    """A checkpoint is missing, damaged, or belongs to something else."""


class NoRunOfTaskError(CheckpointError):
    """There are runs where `latest` or `best` looks, all of other tasks than the command's."""


class ExportError(IsaacHydraExtError):
    """A policy cannot be exported faithfully, or an exported one is not whole."""


class LearnerError(IsaacHydraExtError):
    """An update did not come to its end."""


class DeviceMemoryError(IsaacHydraExtError):
    """The learner's GPU has no room for an update; the weights are those before it."""


class RankError(IsaacHydraExtError):
    """Another of the processes that learn together has gone, or differs from this one."""


class RankDiffersError(RankError):
    """The weights of the processes that learn together are not the same; they are not saved."""


class NonFiniteError(IsaacHydraExtError):
    """Updates produced NaN or Inf; the weights of the last good one are kept."""


class SweepError(IsaacHydraExtError):
    """A job of a multirun failed, or has nothing to optimise."""


class RunInterrupted(IsaacHydraExtError):
    """The run was ended by a signal, after its checkpoint was written."""

    def __init__(self, signum: int, message: str) -> None:
        """Keep the signal; the exit code is 128 plus its number, as shells report it."""
        super().__init__(message)
        self.exit_code = 128 + signum


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest known names, or an empty string."""
    known = list(known)
    near = [word for word in known if word.lower() == name.lower()]
    near = near or get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""


def shown(value: Any, limit: int = MAX_SHOWN) -> str:
    """Return a value as it stands in a message: one line, and not a long one."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def first_line(error: BaseException) -> str:
    """Return what OmegaConf says is wrong, without its traceback in words."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    if "is not a ListConfig" in line or "type hint 'typing.List[" in line:
        return LIST_EXPECTED
    return shown(line.split("raised while resolving interpolation: ")[-1], limit=300)
