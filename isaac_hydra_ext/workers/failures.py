"""What becomes of a worker that failed: another takes its place, or the run ends.

Runs in the learner's main thread. A failure that may be an accident is charged to a budget. An
exception of `step` that its replacement raises too, at the same place, is none; nor is a broken
contract (`EnvContractError`).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from isaac_hydra_ext import errors
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import RunInterrupted, WorkerError
from isaac_hydra_ext.system.activity import Activity
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.handle import WorkerHandle
from isaac_hydra_ext.workers.restarts import HOUR_S, RestartBudget

DEBUGGER = "rollout.num_workers=0 runs the env in the learner's process, for a debugger"
NO_GUARD = 'a script that trains has its calls under if __name__ == "__main__":'


class Failures:
    """The failures of one run's workers.

    Attributes:
        logs: Where workers write, once they have been told to.
        training: Workers collect, so that one may be replaced.
    """

    def __init__(
        self,
        config: RunConfig,
        stop: StopSignals,
        warn: Callable[[str], None],
        activities: Sequence[Activity],
    ) -> None:
        """Begin with the whole budget.

        Args:
            config: `rollout` and `seat` are read.
            stop: After a signal nothing is replaced.
            warn: Told of each worker that is.
            activities: What each worker was at, for messages.
        """
        self._rollout, self._stop, self._warn = config.rollout, stop, warn
        self._directory = f"rank_{config.seat.rank}/workers" if config.seat.rank else "workers"
        self._activities = activities
        self._budget = RestartBudget(config.rollout.max_restarts)
        self._raised: dict[int, tuple[str, float]] = {}  # worker -> where its last one did, when
        self.logs: Path | None = None
        self.training = False

    def charge(self, worker: WorkerHandle, how: str, hint: str = "") -> None:
        """Charge one failure to the budget: the caller then replaces the worker.

        Args:
            worker: That failed.
            how: The rest of a sentence that begins with its name.
            hint: Where the user finds more.

        Raises:
            WorkerError: It is not to be replaced, or not any more.
            RunInterrupted: The user has asked for the end.
        """
        failure = f"{worker} {how}"
        if self._stop.requested:  # of the whole job, probably: nobody wants a new simulator now
            raise RunInterrupted(self._stop.signum, f"{failure} after signal {self._stop.signum}")
        if not self._may_replace:
            raise WorkerError(failure + self._where_to_look(worker))
        self._raised.pop(worker.index, None)
        self._warn(f"{failure}{hint}; replaced ({self._budget.spend(failure)})")

    def report(self, worker: WorkerHandle, body: dict[str, Any]) -> None:
        """Charge what a worker has raised in `step`; the caller then replaces it.

        Args:
            worker: That raised.
            body: Of its ERROR.

        Raises:
            IsaacHydraExtError: Of the class that the worker raised: in another phase, or again.
        """
        invalid = body["class"] == errors.InvalidNumberError.__name__
        if body["phase"] != "step" or not self._may_replace:
            self._give_up(worker, body)
        if invalid and self._rollout.on_invalid == "stop":
            self._give_up(worker, body)
        if body["class"] == errors.EnvContractError.__name__:
            self._give_up(worker, body)
        if not invalid and self._raised_before(worker, body["place"]):
            self._give_up(worker, body, "; so did the one before it, at the same place")
        hint = "" if body["class"] else f" (see {self._log(worker)})"
        self.charge(worker, f"raised: {body['message']}", hint)
        if not invalid:
            self._raised[worker.index] = (body["place"], time.monotonic())

    def last_told(self, worker: WorkerHandle) -> str:
        """Say what a worker was at."""
        return f" (last told: {self._activities[worker.index].now[0]})"

    @property
    def _may_replace(self) -> bool:
        rollout = self._rollout
        wanted = rollout.on_worker_failure == "restart" and not rollout.deterministic
        return self.training and wanted

    def _raised_before(self, worker: WorkerHandle, place: str) -> bool:
        """Return whether the one before in this place has raised there, in the budget's hour."""
        before, when = self._raised.get(worker.index, ("", 0.0))
        return before == place and time.monotonic() - when < HOUR_S

    def _give_up(self, worker: WorkerHandle, body: dict[str, Any], why: str = "") -> None:
        """Raise what a worker reported, as its own class.

        Our own errors say what to do; anything else is told whole.
        """
        cls = getattr(errors, body["class"], WorkerError) if body["class"] else WorkerError
        if issubclass(cls, errors.ConfigError | errors.MissingDependencyError):
            if not self.training:
                raise cls(body["message"])  # the user's input, not the worker, is at fault
            cls = WorkerError  # a replacement: what was right when the run began is not any more
        told = f"worker {worker.index}, {body['phase']}, env {body['env']}: {body['message']}{why}"
        if body["phase"] == "step" and not body["class"]:
            told += f"; see {self._log(worker)} in the run directory; {DEBUGGER}"
        elif not self.training and self._log_size(worker):
            told += f"; see {self._log(worker)} in the run directory"
        raise cls(told if body["class"] else f"{told}\n{body['traceback']}")

    def _log(self, worker: WorkerHandle) -> str:
        """Name a worker's log in the run's directory."""
        return f"{self._directory}/worker_{worker.index}.log"

    def _log_size(self, worker: WorkerHandle) -> int | None:
        """Return how much a worker has printed [bytes]; None where it has no log."""
        try:
            return (self.logs / f"worker_{worker.index}.log").stat().st_size if self.logs else None
        except OSError:
            return None

    def _where_to_look(self, worker: WorkerHandle) -> str:
        """Say where there is more about a worker's end; one without a log wrote on the terminal."""
        if self.logs is None:
            return self.last_told(worker)
        if self._log_size(worker) is not None:
            return f"; see {self._log(worker)} in the run directory"
        return f"; what it said is above; {NO_GUARD}"
