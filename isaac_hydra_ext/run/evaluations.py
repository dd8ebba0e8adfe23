"""When a run is evaluated, and what becomes of the results. Runs in the learner's main thread.

An evaluation that is due while the one before is still going on is skipped and counted. Where no
evaluator can run, the statistics of finished training episodes are used instead, with a warning.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.envs.registry import facts_of
from isaac_hydra_ext.errors import SharedMemoryError
from isaac_hydra_ext.evaluation.episodes import line_of
from isaac_hydra_ext.evaluation.evaluator import Evaluation, Evaluator, evaluator_config
from isaac_hydra_ext.run.record import RunRecord
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.terminal.console import RunConsole

POLL_S = 0.1  # how soon an impatient user is heard, at the end


class Evaluations:
    """The evaluations of one run; with `evaluate.every=0` and no videos, none.

    Attributes:
        skipped: How many were due while the evaluator was busy.
    """

    def __init__(
        self, config: RunConfig, run_dir: Path, record: RunRecord, console: RunConsole
    ) -> None:
        """Start nothing yet.

        Args:
            config: After `complete`.
            run_dir: Of the run.
            record: Keeps the results.
            console: Where to say them.
        """
        self._config, self._run_dir = config, run_dir
        self._record, self._console = record, console
        self._evaluator: Evaluator | None = None
        self._last = config.experiment.max_iterations
        self.skipped = 0

    def is_due(self, done: int) -> bool:
        """Return whether the policy after `done` iterations should be evaluated."""
        every = (self._config.evaluate.every, self._config.logging.video.every)
        return any(n and done % n == 0 for n in every)

    @property
    def _is_on(self) -> bool:
        on = self._config.evaluate.every or self._config.logging.video.every
        return bool(on) and self._config.seat.rank == 0

    @property
    def _is_alive(self) -> bool:
        return self._evaluator is not None and self._evaluator.alive

    def start(self, spec: EnvSpec, size: int) -> None:
        """Start the evaluator, which builds its env while the training begins.

        Args:
            spec: Of the training's env.
            size: Of the flat vector of weights.
        """
        if not self._is_on:
            return
        why = why_impossible(self._config)
        if not why:
            try:
                self._evaluator = Evaluator(
                    self._config, self._run_dir, spec, size, self._console.warn
                )
            except (SharedMemoryError, OSError) as e:
                why = f"its process cannot be started ({e})"
        if why:
            self._console.warn(f"no evaluator: {why}; Eval/* are of finished training episodes")

    def after(self, done: int, flat: torch.Tensor) -> None:
        """Take a result that has arrived, and start an evaluation that is due; never waits.

        Args:
            done: Iterations so far.
            flat: The weights after them.
        """
        if not self._is_on:
            return
        if self._is_alive:
            self._take()
        if not self.is_due(done) or done == self._last:  # that one is `finish`'s
            return
        if not self._is_alive:
            self._record.evaluate_by_training(self.skipped)
        elif self._pending is not None:
            self.skipped += 1
            self._console.say(
                f"evaluation of iteration {done} skipped: that of iteration {self._pending} is "
                f"not done ({self.skipped} skipped)"
            )
        else:
            self._ask(done, flat)

    def finish(self, done: int, flat: torch.Tensor, stop: StopSignals) -> None:
        """Have the last policy evaluated, and wait for it within the evaluator's time limits.

        Args:
            done: Iterations of the whole run.
            flat: The weights after them.
            stop: Whether the user will wait no longer.
        """
        if not self._is_on:
            return
        if self._is_alive:
            self._console.say("waiting for the last evaluation; Ctrl-C to end without it")
            self._wait(stop)
        if self._is_alive and not stop.requested:
            self._ask(done, flat)
            self._wait(stop)
        if not self._is_alive:
            self._record.evaluate_by_training(self.skipped)

    def close(self, at_once: Callable[[], bool]) -> None:
        """End the evaluator, bounded in time.

        Args:
            at_once: Whether the user will wait no longer.
        """
        if self._evaluator is not None:
            self._evaluator.close(at_once)

    def _ask(self, done: int, flat: torch.Tensor) -> None:
        assert self._evaluator is not None
        every = self._config.logging.video.every
        video = bool(every) and (done % every == 0 or done == self._last)
        self._evaluator.ask(done, flat, video)
        self._record.in_evaluation = done

    def _wait(self, stop: StopSignals) -> None:
        """Wait for the evaluator to be idle; its own time limits end that at the latest."""
        while self._is_alive and self._pending is not None and not stop.requested:
            self._take(POLL_S)

    @property
    def _pending(self) -> int | None:
        return self._evaluator.pending if self._evaluator is not None else None

    def _take(self, timeout_s: float = 0.0) -> None:
        assert self._evaluator is not None
        evaluation = self._evaluator.poll(timeout_s)
        self._record.in_evaluation = self._pending
        if evaluation is not None:
            self._tell(evaluation)

    def _tell(self, evaluation: Evaluation) -> None:
        if not math.isfinite(evaluation.result["mean_return"]):
            self._console.warn(
                f"evaluation of iteration {evaluation.iteration} left out: its mean return is "
                f"{evaluation.result['mean_return']}; the env has given NaN or Inf"
            )
            return
        self._record.evaluated(evaluation, self.skipped)
        video = f"; videos/{evaluation.video}" if evaluation.video else ""
        self._console.say(
            f"evaluation of iteration {evaluation.iteration}: {line_of(evaluation.result)}{video}"
        )


def why_impossible(config: RunConfig) -> str:
    """Return why no second simulation can run beside the training's; empty if one can."""
    evaluate, ours = config.evaluate, config.rollout.device
    theirs = evaluator_config(config).rollout.device
    same_gpu = theirs.startswith("cuda") and theirs in ours.split(",")
    facts = facts_of(config.env)
    if facts.shares_gpu or not same_gpu or evaluate.cuda_visible_devices is not None:
        return ""
    return (
        f"{facts.name} has {ours} to itself; name another GPU with "
        "evaluate.cuda_visible_devices, or say evaluate.device=cpu"
    )
