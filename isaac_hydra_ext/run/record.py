"""What a run leaves behind: its totals, curve, checkpoints and `summary.json`.

Runs in the learner's main thread.
"""

from collections.abc import Callable
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint, save_checkpoint
from isaac_hydra_ext.checkpoints.history import FILE, append, evaluated_returns
from isaac_hydra_ext.checkpoints.retention import delete_old
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import CheckpointError, ConfigError, shown
from isaac_hydra_ext.evaluation.evaluator import Evaluation
from isaac_hydra_ext.evaluation.video import DIRECTORY
from isaac_hydra_ext.reports.report import write_report
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.run.episodes import EpisodeTracker
from isaac_hydra_ext.run.metrics import collection_metrics, evaluation_metrics, rollout_notes
from isaac_hydra_ext.run.rate import SteadyRate
from isaac_hydra_ext.run.resume import resumed_totals
from isaac_hydra_ext.run.summary import summarize, write_summary
from isaac_hydra_ext.run.totals import RunTotals
from isaac_hydra_ext.trackers.tracker import TrackedRun
from isaac_hydra_ext.trackers.trackers import Trackers


class RunRecord:
    """The record of one run, kept from its directory's making to its end.

    Attributes:
        totals: Over all processes of the run.
        summary: What `summary.json` says now.
        in_evaluation: The iteration whose checkpoint must stay, as its evaluation goes on.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        device: torch.device,
        counts: RolloutCounts,
        warn: Callable[[str], None],
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin with nothing done.

        Args:
            config: After `complete`.
            run_dir: From `make_run_dir`.
            device: The learner's.
            counts: Of this process's samples; whoever collects them keeps it.
            warn: Told of what is missing from the record, and of what collectors report.
            hurry: Whether the user will wait no longer for trackers to upload.
        """
        self._config, self._run_dir, self._device = config, run_dir, device
        self._counts, self._warn, self._hurry = counts, warn, hurry
        self.totals = RunTotals()
        self.summary: dict[str, Any] = {}
        self._episodes: EpisodeTracker | None = None
        self._rate: SteadyRate | None = None
        self._trackers: Trackers | None = None
        self._spec: EnvSpec | None = None
        self._said: set[str] = set()  # warnings that are given once
        self._evaluation: dict[str, Any] | None = None  # the last one
        self._best_evaluated = max(evaluated_returns(run_dir).values(), default=-inf)
        self.in_evaluation: int | None = None

    def begin(self, spec: EnvSpec, random_start: list[bool], resumed: Checkpoint | None) -> None:
        """Open the curves, once the envs are built.

        Args:
            spec: Of one worker's env.
            random_start: Per collector: its envs began at random episode times.
            resumed: What the run goes on from.
        """
        self._spec = spec
        self._episodes = EpisodeTracker(self._config.num_collectors, spec.num_envs, random_start)
        if resumed is not None:
            self._episodes.load_state_dict(resumed.meta["episodes"])
            self.totals = resumed_totals(resumed)
        config = self._config
        last, lag = config.experiment.max_iterations, config.rollout.max_policy_lag
        self._rate = SteadyRate(self.totals.iterations, last, lag)
        run = TrackedRun(
            self._run_dir,
            project=str(config.experiment.name),
            config=config.to_dict(),
            first=resumed.meta["iteration"] if resumed else 0,
            previous_dir=resumed.path.absolute().parent.parent if resumed else None,
        )
        self._trackers = Trackers(config.logging, run, self._warn, self._hurry)

    def read(
        self, iteration: int, slots: list[Slot], idle_s: float
    ) -> tuple[dict[str, float], list[Any]]:
        """Read all that is reported of an iteration's rollouts, before their slots go back.

        Returns:
            Metrics by tag, and the state of each collector's env where it was stored.
        """
        assert self._episodes is not None
        self._episodes.observe(slots)
        extras = [slot.read_extra() for slot in slots]
        for note in rollout_notes(iteration, extras, self._said):
            self._warn(note)
        metrics = collection_metrics(iteration, slots, extras, idle_s)
        return metrics, [extra.get("env_state") for extra in extras]

    def add(self, metrics: dict[str, float]) -> dict[str, float]:
        """Count one iteration; returns its metrics with the totals that follow from it."""
        assert self._episodes is not None and self._rate is not None
        iteration, samples = self.totals.iterations, self._config.n_buffer
        steady = self._rate.is_steady(iteration)
        metrics = metrics | self.totals.add(metrics, self._episodes, samples, steady)
        seconds = metrics["Perf/iteration_time"]
        metrics["Perf/total_fps"] = self._rate.add(iteration, samples, seconds)
        return metrics | self.totals.sample_metrics(self._counts)

    def log(self, metrics: dict[str, float]) -> None:
        """Write one point of each curve."""
        if self._trackers is not None:
            self._trackers.log(metrics, self.totals.iterations)

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
            append(self._run_dir, self._evaluation)
        except OSError as e:
            self._warn(f"{FILE} cannot be written: {e}; best does not know this evaluation")
        if self._trackers is None:
            return
        self._trackers.log(evaluation_metrics(iteration, result, skipped), iteration)
        if evaluation.video:
            path = self._run_dir / DIRECTORY / evaluation.video
            self._trackers.log_video("Eval/video", path, iteration)

    def evaluate_by_training(self, skipped: int) -> None:
        """Log the last finished training episodes in an evaluation's place."""
        assert self._episodes is not None
        if self._trackers is not None and (result := self._episodes.summary()) is not None:
            metrics = evaluation_metrics(self.totals.iterations, result, skipped)
            metrics["Eval/from_training"] = 1.0
            self._trackers.log(metrics, self.totals.iterations)

    def save(
        self, tensors: dict[str, torch.Tensor], env_states: list[Any], must_succeed: bool
    ) -> None:
        """Write a checkpoint of everything after this iteration, and the summary.

        Args:
            tensors: The learner's.
            env_states: From `read`.
            must_succeed: There will be no other: `checkpoint.on_error=warn` does not apply.

        Raises:
            CheckpointError: It cannot be written; earlier ones are intact.
        """
        assert self._episodes is not None and self._spec is not None
        if self._trackers is not None:
            self._trackers.flush()
        whole = all(state is not None for state in env_states)
        meta = {
            "env_steps": self.totals.env_steps,
            "config": self._config.to_dict(),
            "spec": self._spec.to_json(),
            "episodes": self._episodes.state_dict(episodes_go_on=whole and self._spec.whole_state),
            "env_states": env_states if whole else None,
            "totals": asdict(self.totals) | self.totals.with_counts(self._counts),
        }
        directory = self._run_dir / "checkpoints"
        try:
            save_checkpoint(directory, self.totals.iterations, tensors, meta)
            delete_old(directory, self._config.checkpoint, keep=self.in_evaluation)
        except CheckpointError as e:
            if must_succeed or self._config.checkpoint.on_error == "stop":
                raise
            self._warn(f"WARNING: {e}; the run goes on (checkpoint.on_error=warn)")
        self.summarize("running")

    def summarize(self, status: str) -> None:
        """Write `summary.json`; if that is not possible, the run is none the worse for it."""
        self.summary = summarize(status, self.totals, self._counts, self._episodes, self._device)
        self.summary["evaluation"] = self._evaluation
        try:
            write_summary(self._run_dir / "summary.json", self.summary)
        except OSError as e:
            self._warn(f"summary.json cannot be written: {e}")

    def close(self, status: str) -> None:
        """Write the last summary, and end the curves."""
        self.summarize(status)
        if self._trackers is not None:
            self._trackers.close()

    def write_report(self) -> None:
        """Write `report.md`, where that is wanted and something has been learned."""
        if not self._config.logging.report or not self.totals.iterations:
            return
        try:
            write_report(self._run_dir, patient=False)
        except ConfigError as e:
            self._warn(f"no report: {e}")
        except Exception as e:
            # The run is complete and its results are written. Whatever matplotlib and TensorBoard
            # raise as they draw and read (they have no common error) must not make it a failed one.
            self._warn(
                f"no report: {type(e).__name__}: {shown(e)}; try again: appo report {self._run_dir}"
            )
