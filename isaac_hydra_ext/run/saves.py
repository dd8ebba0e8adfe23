"""When a run is saved, and how it ends before its last iteration.

Runs in the learner's main thread.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import (
    CheckpointError,
    IsaacHydraExtError,
    LearnerError,
    RankDiffersError,
    RankError,
    RunInterrupted,
)
from isaac_hydra_ext.learner.algorithm import Algorithm
from isaac_hydra_ext.run.evaluations import Evaluations
from isaac_hydra_ext.run.record import RunRecord
from isaac_hydra_ext.system.stop_signals import StopSignals

# A function of the user's, called after each iteration with `iteration`, `env_steps` and the
# metrics by tag. If it returns False the run ends, completed; if it raises, the run has failed with
# its error. The iteration is saved either way.
OnIteration = Callable[[Mapping[str, float]], bool | None] | None


class Saves:
    """The checkpoints of one run."""

    def __init__(
        self,
        config: RunConfig,
        record: RunRecord,
        algorithm: Algorithm,
        evaluations: Evaluations,
        stop: StopSignals,
        resume_key: str,
    ) -> None:
        """Save nothing yet.

        Args:
            config: The complete one.
            record: Writes the files.
            algorithm: Whose state they hold.
            evaluations: What they play is saved: it may be the best.
            stop: The user's signals: what they end is saved.
            resume_key: How the application's command line names `resume`.
        """
        self._every, self._last = config.checkpoint.every, config.experiment.max_iterations
        self._record, self._algorithm, self._stop = record, algorithm, stop
        self._evaluations, self._resume_key, self._ranks = evaluations, resume_key, record.ranks
        self._first = record.totals.iterations

    def is_due(self, done: int) -> bool:
        """Return whether the run is saved after so many iterations."""
        return done % self._every == 0 or done == self._last or self._evaluations.is_due(done)

    def after(
        self, done: int, metrics: Mapping[str, float], on_iteration: OnIteration = None
    ) -> bool:
        """Save what is due after an iteration; returns whether the run goes on.

        Args:
            done: Iterations so far.
            metrics: Of the last, by tag.
            on_iteration: The user's.

        Raises:
            RunInterrupted: A signal ends the run.
            CheckpointError: It cannot be written, and there will be no other.
            RankError: Another rank has gone; what is done is saved, where the weights are the same.
        """
        stop = bool(self._record.stop_signum)  # once: a later one has the next iteration's save
        due, final = self.is_due(done), done == self._last or stop
        try:
            if due or stop:
                self._save(final)
            if stop:
                raise self.interruption()
            goes_on, alone = True, False
            if on_iteration is not None:
                steps, goes_on, alone = self._record.totals.env_steps, False, True
                try:
                    answer = on_iteration({"iteration": done, "env_steps": steps, **metrics})
                    goes_on, alone = answer is None or bool(answer), False
                finally:
                    if alone and not due:  # it has raised, on this rank
                        self._save(final=True, alone=True)
            goes_on = all(self._ranks.group.exchange(goes_on))
            if not goes_on and not due:
                self._save(final=True)
        except RankDiffersError:
            raise
        except RankError as e:
            if self._ranks.is_first_left:
                self._save(final, alone=True)
            raise RankError(f"{e}; {self._how_to_go_on()}") from e
        return goes_on

    def _save(self, final: bool, alone: bool = False) -> None:
        self._record.save(self._algorithm.state_dict(), must_succeed=final, alone=alone)

    @contextmanager
    def rescuing(self, iteration: int) -> Iterator[None]:
        """Save what was learned before an iteration that fails.

        Raises:
            IsaacHydraExtError: What ended the iteration; of a signal, how to go on.
        """
        try:
            yield
        except IsaacHydraExtError as e:
            self._ranks.fail(e)  # the others wait for this one
            # A half-done update is nothing to save, and a second signal means now.
            if not isinstance(e, LearnerError) and not self._stop.at_once:
                self._save_before(iteration)
            if isinstance(e, RunInterrupted) and not self._stop.at_once:
                raise self.interruption() from e
            if isinstance(e, RankError):
                raise RankError(f"{e}; {self._how_to_go_on()}") from e
            raise

    def _save_before(self, failed: int) -> None:
        """Save, unless the iteration before was saved or there was none."""
        if failed == self._first or self.is_due(failed) or not self._ranks.is_first_left:
            return
        self._record.forget_env_states()  # those of the failed iteration are ahead of the weights
        try:
            self._save(final=self._stop.requested, alone=True)
        except CheckpointError as e:  # what ended the run is the error to raise
            self._record.warn(f"WARNING: {e}")

    def interruption(self) -> RunInterrupted:
        """Return the end of a run that a signal has ended, saved."""
        signum = self._record.stop_signum or self._stop.signum
        return RunInterrupted(
            signum,
            f"stopped by signal {signum} after iteration {self._record.totals.iterations}; "
            f"{self._how_to_go_on()}",
        )

    def _how_to_go_on(self) -> str:
        run_dir = shlex.quote(str(self._record.root))
        return f"go on with the same command and {self._resume_key}={run_dir}"
