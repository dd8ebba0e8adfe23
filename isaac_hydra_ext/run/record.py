"""What a run leaves behind: its totals, curve, checkpoints and `summary.json`.

Runs in the learner's main thread.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import inf, isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint, save_checkpoint
from isaac_hydra_ext.checkpoints.history import FILE, append, evaluated_returns
from isaac_hydra_ext.checkpoints.retention import delete_old
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import CheckpointError, ConfigError, RunInterrupted, shown
from isaac_hydra_ext.evaluation.evaluator import Evaluation
from isaac_hydra_ext.evaluation.video import DIRECTORY
from isaac_hydra_ext.reports.report import write_report
from isaac_hydra_ext.rollout.counts import RolloutCounts, lost
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.source import RolloutSource
from isaac_hydra_ext.run.directory import made_again
from isaac_hydra_ext.run.episodes import EpisodeTracker, joined_states
from isaac_hydra_ext.run.metrics import (
    collection_metrics,
    evaluation_metrics,
    mean_of_ranks,
    rollout_notes,
)
from isaac_hydra_ext.run.ranks import Ranks
from isaac_hydra_ext.run.rate import SteadyRate
from isaac_hydra_ext.run.resume import resumed_totals
from isaac_hydra_ext.run.summary import summarize, write_summary
from isaac_hydra_ext.run.totals import RunTotals
from isaac_hydra_ext.system.laps import Laps
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.terminal.clock import Clock
from isaac_hydra_ext.terminal.console import IterationView, RunConsole
from isaac_hydra_ext.terminal.metric import Metric
from isaac_hydra_ext.trackers.hparams import hparams_of
from isaac_hydra_ext.trackers.tracker import TrackedRun
from isaac_hydra_ext.trackers.trackers import Trackers


class RunRecord:
    """The record of one run, kept from its directory's making to its end.

    Leaving it closes the source of rollouts, which settles the counts, and writes the last summary.
    Every rank keeps the same one, of all ranks; the first alone writes it down.

    Attributes:
        run_dir: The run's; of another rank than the first, its own in it.
        ranks: Those that learn together.
        warn: Prints a warning: what the record lacks, and what collectors report.
        totals: Over all processes of the run.
        summary: What `summary.json` says now.
        in_evaluation: The iteration whose checkpoint must stay, as its evaluation goes on.
        signum: Of the signal that a rank had been given by the last iteration; 0: none.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        device: torch.device,
        source: RolloutSource,
        console: RunConsole,
        stop: StopSignals,
        typed: Sequence[str],
        ranks: Ranks,
    ) -> None:
        """Begin with nothing done.

        Args:
            config: After `complete`.
            run_dir: From `make_run_dir`.
            device: The learner's.
            source: Of the rollouts; it keeps the counts of this process's samples.
            console: Where iterations are shown, and what is missing from the record.
            stop: Whether the user will wait no longer, e.g. for trackers to upload.
            typed: The user's override tokens.
            ranks: Those that learn together.
        """
        self._config, self.run_dir, self._device = config, run_dir, device
        self._source, self._stop, self.ranks = source, stop, ranks
        self._others: list[dict[str, int]] = []  # the other ranks' counts
        self.signum = 0
        self._console, self.warn, self._typed = console, console.warn, typed
        self._laps = Laps()
        self.totals = RunTotals()
        self.summary: dict[str, Any] = {}
        self._episodes: EpisodeTracker | None = None
        self._rate: SteadyRate | None = None
        self._trackers: Trackers | None = None
        self._clock: Clock | None = None
        self._last = config.experiment.max_iterations
        self._spec: EnvSpec | None = None
        self._learned: Sequence[Metric] = ()
        self._last_learned: dict[str, float] = {}
        self._said: set[str] = set()  # warnings that are given once
        self._env_states: list[Any] = [None]  # after the iteration that was read last
        self._evaluation: dict[str, Any] | None = None  # the last one
        self._best_evaluated = max(evaluated_returns(run_dir).values(), default=-inf)
        self.in_evaluation: int | None = None

    @property
    def root(self) -> Path:
        """The run's directory, on every rank."""
        return self.run_dir if self.ranks.is_first else self.run_dir.parent

    def begin(self, spec: EnvSpec, resumed: Checkpoint | None, learned: Sequence[Metric]) -> None:
        """Open the curves, once the envs are built.

        Args:
            spec: Of one collector's env.
            resumed: What the run goes on from.
            learned: What is shown first of the algorithm's metrics.
        """
        self._spec, self._learned = spec, learned
        self._episodes = EpisodeTracker(
            self._config.num_collectors,
            spec.num_envs,
            self._source.random_start,
            self.ranks.group.size,
        )
        if resumed is not None:
            self._episodes.load_state_dict(resumed.meta["episodes"])
            self.totals = resumed_totals(resumed)
        config, first = self._config, self.totals.iterations
        self._rate = SteadyRate(first, self._last, config.rollout.max_policy_lag)
        run = TrackedRun(
            self.run_dir,
            project=str(config.experiment.name),
            config=config.to_dict(),
            hparams=hparams_of(config, self._typed),
            first=resumed.meta["iteration"] if resumed else 0,
            previous_dir=resumed.path.absolute().parent.parent if resumed else None,
        )
        self._clock = Clock(first, self._last, config.checkpoint.every)
        self._laps = Laps()
        if self.ranks.is_first:
            self._trackers = Trackers(config.logging, run, self.warn, lambda: self._stop.at_once)

    def read(self, iteration: int, slots: list[Slot]) -> dict[str, float]:
        """Read all that is reported of an iteration's rollouts, before their slots go back.

        Returns:
            Metrics by tag. What the slots hold of the envs' states is kept for `save`.
        """
        assert self._episodes is not None
        self._episodes.observe(slots)
        extras = [slot.read_extra() for slot in slots]
        for note in rollout_notes(iteration, extras, self._said):
            self.warn(note)
        self._env_states = [extra.get("env_state") for extra in extras]
        return collection_metrics(iteration, slots, extras)

    def forget_env_states(self) -> None:
        """Have the next checkpoint hold none: the envs are ahead of what was learned."""
        self._env_states = [None]

    def add(self, metrics: dict[str, float]) -> dict[str, float]:
        """Count one iteration; returns its metrics with the totals that follow from it."""
        assert self._episodes is not None and self._rate is not None
        iteration, samples = self.totals.iterations, self._config.n_buffer * self.ranks.group.size
        if metrics.get("Loss/undone") and self.ranks.is_first:
            self.warn(
                f"iteration {iteration}: non-finite loss or gradient; the update was undone, "
                f"version {iteration + 1} has the weights of version {iteration}"
            )
        metrics = self._of_all_ranks(metrics | self._laps.turn("Perf/iteration_time"))
        steady = self._rate.is_steady(iteration)
        metrics = metrics | self.totals.add(metrics, self._episodes, samples, steady)
        seconds = metrics["Perf/iteration_time"]
        metrics["Perf/total_fps"] = self._rate.add(iteration, samples, seconds)
        return metrics | self.totals.sample_metrics(self._counts)

    @property
    def _counts(self) -> RolloutCounts:
        return self._source.counts.with_others(self._others)

    def _of_all_ranks(self, metrics: dict[str, float]) -> dict[str, float]:
        """Exchange what an iteration came to; returns the metrics' means over all ranks."""
        group = self.ranks.group
        if group.size == 1:
            return metrics
        assert self._episodes is not None
        reports = group.exchange(
            {
                "metrics": metrics,
                "episodes": self._episodes.share(),
                "counts": asdict(self._source.counts),
                "warnings": self._console.unsaid(),
                "signum": self._stop.signum,
            }
        )
        self.ranks.started()
        self._episodes.take([report["episodes"] for report in reports], group.rank)
        self._others = [r["counts"] for rank, r in enumerate(reports) if rank != group.rank]
        self.signum = max(report["signum"] for report in reports)
        if group.is_first:
            for rank, report in enumerate(reports):
                for line in report["warnings"]:
                    self.warn(f"rank {rank}: {line}")
        return mean_of_ranks([report["metrics"] for report in reports])

    @property
    def stop_signum(self) -> int:
        """The signal that ends the run after this iteration, the same on every rank; or 0."""
        return self._stop.signum if self.ranks.group.size == 1 else self.signum

    @contextmanager
    def timed(self, tag: str) -> Iterator[None]:
        """Take the time of a part of the iteration; `add` puts it among the metrics."""
        self._laps.start()
        yield
        self._laps.end(tag)

    def show(self, metrics: dict[str, float]) -> None:
        """Write a point of each curve and a line, as often as `logging.every` says."""
        assert self._clock is not None
        done, last, eta_s = self.totals.iterations, self._last, self._clock.iteration_done()
        self.keep_directory()
        steps = self.totals.env_steps
        self._last_learned = {m.tag: metrics[m.tag] for m in self._learned}
        if self._trackers is None:
            return
        if done % self._config.logging.every == 0 or done == last:
            self._trackers.log(metrics, done)
            lags = self._config.rollout.max_policy_lag > 0
            view = IterationView(done, last, steps, metrics, eta_s, self._learned, lags)
            self._console.show(view)

    def keep_directory(self) -> None:
        """Make the run's directory again if it was moved or deleted, and say so.

        What is written next goes there, the last checkpoint above all.
        """
        if not self.ranks.is_first:
            return
        try:
            if made_again(self.run_dir, self._config):
                self.warn(
                    f"{self.run_dir} was moved or deleted, and is made again: checkpoints and "
                    "curves from before are not in it"
                )
        except OSError as e:
            if "directory" not in self._said:
                self._said.add("directory")
                self.warn(f"{self.run_dir} was moved or deleted, and cannot be made again: {e}")

    def evaluated(self, evaluation: Evaluation, skipped: int) -> None:
        """Keep what an evaluation came to.

        Args:
            evaluation: Of an iteration that has passed; its numbers are finite.
            skipped: How many were, so far.
        """
        result, iteration = evaluation.result, evaluation.iteration
        self._best_evaluated = max(result["mean_return"], self._best_evaluated)
        self._evaluation = {
            "iteration": iteration,
            **result,
            "best_mean_return": self._best_evaluated,
            "skipped": skipped,
            "video": evaluation.video,
        }
        try:
            append(self.run_dir, self._evaluation)
        except OSError as e:
            self.warn(f"{FILE} cannot be written: {e}; best does not know this evaluation")
        if self._trackers is None:
            return
        self._trackers.log(evaluation_metrics(iteration, result, skipped), iteration)
        if evaluation.video:
            path = self.run_dir / DIRECTORY / evaluation.video
            self._trackers.log_video("Eval/video", path, iteration)

    def evaluate_by_training(self, skipped: int) -> None:
        """Log the last finished training episodes in an evaluation's place."""
        assert self._episodes is not None
        if self._trackers is not None and (result := self._episodes.summary()) is not None:
            metrics = evaluation_metrics(self.totals.iterations, result, skipped)
            metrics["Eval/from_training"] = 1.0
            self._trackers.log(metrics, self.totals.iterations)

    def save(
        self, tensors: dict[str, torch.Tensor], must_succeed: bool, alone: bool = False
    ) -> None:
        """Write a checkpoint of everything after this iteration, and the summary.

        Args:
            tensors: The learner's.
            must_succeed: There will be no other: `checkpoint.on_error=warn` does not apply.
            alone: A rank has failed, or all do: the others are not asked for anything.

        Raises:
            CheckpointError: It cannot be written; earlier ones are intact.
            RankDiffersError: The ranks' weights differ: nothing is written.
            RankError: Another rank has gone.
        """
        assert self._episodes is not None and self._spec is not None
        self.keep_directory()
        if self._trackers is not None:
            self._trackers.flush()
        env_states, episodes = self._env_states, self._episodes.state_dict(self._spec.whole_state)
        if not alone:
            self.ranks.compare(tensors, self.totals.iterations)
            parts = self.ranks.group.exchange({"env_states": env_states, "episodes": episodes})
            env_states = [state for part in parts for state in part["env_states"]]
            episodes = joined_states([part["episodes"] for part in parts])
            if not self.ranks.is_first:
                return
        whole = all(state is not None for state in env_states)
        if not whole:
            episodes.pop("running", None)
        meta = {
            "ranks": self.ranks.group.size,
            "env_steps": self.totals.env_steps,
            "config": self._config.to_dict(),
            "spec": self._spec.to_json(),
            "episodes": episodes,
            "env_states": env_states if whole else None,
            "totals": asdict(self.totals) | self.totals.with_counts(self._counts),
        }
        directory = self.root / "checkpoints"
        try:
            save_checkpoint(directory, self.totals.iterations, tensors, meta)
            delete_old(directory, self._config.checkpoint, keep=self.in_evaluation)
        except CheckpointError as e:
            if must_succeed or self._config.checkpoint.on_error == "stop":
                raise
            self.warn(f"WARNING: {e}; the run goes on (checkpoint.on_error=warn)")
        self.summarize("running")
        if self._clock is not None:
            self._clock.save_done()

    def summarize(self, status: str) -> None:
        """Write `summary.json`; a failure is only a warning."""
        self.summary = summarize(status, self.totals, self._counts, self._episodes, self._device)
        self.summary["evaluation"] = self._evaluation
        self.summary["learned"] = {
            tag: value if isfinite(value) else None for tag, value in self._last_learned.items()
        }
        if not self.ranks.is_first:
            return
        try:
            write_summary(self.run_dir / "summary.json", self.summary)
        except OSError as e:
            self.warn(f"summary.json cannot be written: {e}")

    def __enter__(self) -> "RunRecord":
        """Nothing to do."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the source, then write the last summary and the report, and end the curves."""
        interrupted = kind is not None and issubclass(kind, RunInterrupted)
        status = "completed" if kind is None else "interrupted" if interrupted else "failed"
        self.summarize(status)  # with W = 0 a simulation may end the process as it closes
        try:
            for failure in self._source.close():
                self.warn(failure)
            if error is not None and not interrupted:
                self.ranks.fail(error)
            said = self.ranks.farewell(asdict(self._source.counts))
            self._others = [new or lost(old) for new, old in zip(said, self._others, strict=False)]
        finally:
            self.summarize(status)
            if self._trackers is not None:
                self._console.say(*self._trackers.close())
            if not self._stop.at_once:
                self._write_report()

    def _write_report(self) -> None:
        """Write `report.md`, if `logging.report` is on and an iteration was done."""
        first = self.ranks.is_first
        if not (first and self._config.logging.report and self.totals.iterations):
            return
        try:
            write_report(self.run_dir, patient=False)
        except ConfigError as e:
            self.warn(f"no report: {e}")
        except Exception as e:
            # The run is complete and its results are written. Whatever matplotlib and TensorBoard
            # raise as they draw and read (they have no common error) must not make it a failed one.
            self.warn(
                f"no report: {type(e).__name__}: {shown(e)}; try again: appo report {self.run_dir}"
            )
