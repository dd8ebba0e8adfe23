"""The run, top to bottom: compose -> spawn -> iterate -> checkpoint -> close.

    python -m isaac_hydra_ext.appo_runner env=gym_pendulum rollout.num_workers=2

This file is orchestration only, and all of it runs in the learner's process, in its main thread.
Iteration k trains on exactly rollout k of every worker and turns policy version k into k + 1.
Rollout k may use any version from max(first, k - L) on, so publishing version v lets the workers
start rollout v + L; with L = 0 that is synchronous PPO, with L >= 1 they simulate while we learn.
"""

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.fit import check_fits, fitting_part
from isaac_hydra_ext.config.placement import learner_device, set_learner_threads
from isaac_hydra_ext.config.reading import Settings, complete, read
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TaskDescription
from isaac_hydra_ext.envs.loading import configure
from isaac_hydra_ext.errors import (
    CheckpointError,
    ConfigError,
    IsaacHydraExtError,
    LearnerError,
    RunInterrupted,
)
from isaac_hydra_ext.learner.algorithm import make_algorithm
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.memory import check_memory, check_processes
from isaac_hydra_ext.rollout.source import RolloutSource
from isaac_hydra_ext.run.directory import ReservedRunDir, make_run_dir, write_inputs
from isaac_hydra_ext.run.evaluations import Evaluations
from isaac_hydra_ext.run.record import RunRecord
from isaac_hydra_ext.run.resume import find_resumed, last_iteration
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.system.tracing import Tracer
from isaac_hydra_ext.terminal.clock import Clock
from isaac_hydra_ext.terminal.console import IterationView, RunConsole
from isaac_hydra_ext.trackers.trackers import check_trackers
from isaac_hydra_ext.workers.sources import make_source


def train(
    cfg: DictConfig,
    typed: Sequence[str] = (),
    package: str = "",
    announce: Callable[[Path], None] | None = None,
    lasting: bool = False,
) -> dict[str, Any]:
    """Run one training from a composed configuration; see `open_run` for the arguments.

    Returns:
        The content of `summary.json`, and `run_dir`.

    Raises:
        IsaacHydraExtError: With one line that says what to do. Nothing is left running.
    """
    with open_run(cfg, typed, package, announce, lasting) as run:
        run.iterate()
    return {**run.record.summary, "run_dir": str(run.run_dir)}


@contextmanager
def open_run(
    cfg: DictConfig,
    typed: Sequence[str] = (),
    package: str = "",
    announce: Callable[[Path], None] | None = None,
    lasting: bool = False,
) -> Iterator["Run"]:
    """Give a run whose envs and learner are built; leaving it closes them.

    Args:
        cfg: With the groups of this package's `conf/` at its top level.
        typed: The user's override tokens.
        package: Where `cfg` lies in the application's configuration, e.g. `appo`.
        announce: Told of the run's directory, before any process starts.
        lasting: Keep the announced path when the task's name has become part of another.

    Raises:
        IsaacHydraExtError: As `train`.
    """
    if isinstance(typed, ListConfig):  # as Hydra has it; reading it would fill in variables
        typed = [str(token) for token in OmegaConf.to_container(typed, resolve=False) or ()]
    if package:
        typed = [token.lstrip("+").removeprefix(f"{package}.") for token in typed]
    settings = read(cfg, typed)
    config = configure(settings)
    check_trackers(config.logging)
    check_processes(config)
    console = RunConsole(config.logging.console)
    with ExitStack() as stack:
        stack.callback(console.close)
        stop = stack.enter_context(StopSignals())
        source = make_source(config, stop, console.warn)
        reserved = None
        if announce is not None:
            reserved = stack.enter_context(ReservedRunDir(config, lasting))
            announce(reserved.path)
        stack.callback(source.close)
        console.starting(source.activities, shared=config.num_workers == 0)
        task = source.describe()
        config, resumed = _complete(settings, config.num_workers, task, console)
        run_dir = reserved.settle(config) if reserved else make_run_dir(config)
        try:
            write_inputs(run_dir, typed, config, task.env_config)
        except OSError as e:
            raise ConfigError(f"experiment.output_dir: cannot write to {run_dir} ({e})") from e
        console.say(f"run directory: {run_dir}")
        resume_key = f"++{package}.resume" if package else "resume"
        with Run(config, run_dir, console, stop, source, resume_key) as run:
            run.build(resumed)
            yield run


def _complete(
    settings: Settings, num_workers: int, task: TaskDescription, console: RunConsole
) -> tuple[RunConfig, Checkpoint | None]:
    """Put the user's settings above what the task recommends; find what the run resumes."""
    config = configure(settings, task.settings, num_workers)
    for note in (*task.notes, *complete(config, task.default_num_envs, settings.typed)):
        console.say(note)
    resumed = find_resumed(config, console)
    config.experiment.max_iterations = last_iteration(config, resumed)
    return config, resumed


class Run:
    """One training run: its parts, and the loop over them. Leaving it closes them."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        console: RunConsole,
        stop: StopSignals,
        source: RolloutSource,
        resume_key: str,
    ) -> None:
        """Hold what the run is made with; `build` makes the rest.

        Args:
            config: After `complete`.
            run_dir: From `make_run_dir`.
            console: Where to show what happens.
            stop: The user's signals.
            source: Of rollouts; nothing is built yet.
            resume_key: How the application's command line names `resume`.
        """
        self.config, self.run_dir, self.console, self.stop = config, run_dir, console, stop
        self.source, self._resume_key = source, resume_key
        self.device = torch.device(learner_device(config))
        self.record = RunRecord(
            config, run_dir, self.device, source.counts, console.warn, lambda: stop.at_once
        )
        self.evaluations = Evaluations(config, run_dir, self.record, console)
        where = (self.device.type, config.rollout.device if not config.num_workers else "")
        on_gpu = any(device.startswith("cuda") for device in where)
        last = config.experiment.max_iterations
        self.tracer = Tracer(config.logging.profile, last, run_dir, "learner", on_gpu, console.say)
        self.first, self.last = 0, config.experiment.max_iterations

    def __enter__(self) -> "Run":
        """Nothing to do: `build` follows."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the workers, which settles the counts, and write the last summary."""
        self.stop.closing = True
        self.console.close()  # others may print now
        interrupted = kind is not None and issubclass(kind, RunInterrupted)
        status = "completed" if kind is None else "interrupted" if interrupted else "failed"
        self.evaluations.close(lambda: self.stop.at_once)
        self.record.summarize(status)  # with W = 0 a simulation may end the process as it closes
        try:
            for failure in self.source.close():
                self.console.warn(failure)
        finally:
            self.record.close(status)
            if not self.stop.at_once:
                self.record.write_report()

    def build(self, resumed: Checkpoint | None) -> None:
        """Build envs, learner and buffer, load the checkpoint, publish the first version."""
        config, source = self.config, self.source
        self._tell_notes()  # of the start
        self.first = resumed.meta["iteration"] if resumed else 0
        env_state_from = resumed.path if resumed and resumed.meta["env_states"] else None
        set_learner_threads(config)
        self.spec: EnvSpec = source.build(config, self.run_dir, env_state_from, self.first)
        self.stop.keep()
        self.stop.raise_if_requested()
        self._tell_notes()
        check_memory(config, self.spec, learner_on_cpu=self.device.type == "cpu")
        self.learner = make_algorithm(config, self.spec, self.device)
        if resumed is not None:
            self._load(resumed)
        self.learner.capture()
        self.stop.keep()
        for note in self.learner.notes:
            self.console.say(note)
        self.record.begin(self.spec, source.random_start, resumed)
        policy = self.learner.policy
        layout = SlotLayout.of(self.spec, config.rollout.steps_per_env, policy)
        self.weights = source.attach(layout, policy.flat.numel(), self.device)
        self._tell_notes()
        self.learner.publish(self.weights, self.first)
        source.announce(self.first)
        for iteration in range(self.first, self.first + config.rollout.max_policy_lag + 1):
            self.grant(iteration)
        self.console.say(
            f"N_buffer = {config.num_collectors} x {self.spec.num_envs} x "
            f"{config.rollout.steps_per_env} = {config.n_buffer} samples; "
            f"{policy.num_params:,} parameters; learner on {self.device}"
        )
        self.console.say(f"truncated episodes bootstrap from {self.spec.bootstrap}")
        self.tracer.check(self.first)
        self.evaluations.start(self.spec, policy.flat.numel())
        self.iteration_ended = time.monotonic()

    def _tell_notes(self) -> None:
        for note in self.source.notes:
            self.console.say(note)
        self.source.notes.clear()

    def _load(self, resumed: Checkpoint) -> None:
        """Take over everything a checkpoint holds."""
        own, spec = self.learner.state_dict(), self.spec.to_json()
        if self.config.checkpoint.partial:
            resumed, left_out = fitting_part(resumed, own, spec)
            for line in left_out:
                self.console.warn(line)
        else:
            check_fits(resumed, own, spec)
        self.learner.load_state_dict(resumed.tensors, resumed.meta["config"])

    def iterate(self) -> None:
        """Learn until the last iteration.

        Raises:
            RunInterrupted: A signal ended it before; everything is saved.
        """
        config = self.config
        self.console.start(f"APPO {config.experiment.name}")
        clock = Clock(self.first, self.last, config.checkpoint.every)
        for k in range(self.first, self.last):
            self.stop.keep()
            try:
                metrics, env_states = self.iteration(k)
            except IsaacHydraExtError as e:
                # A half-done update is nothing to save, and a second signal means now.
                if not isinstance(e, LearnerError) and not self.stop.at_once:
                    self._save_before(k)
                if isinstance(e, RunInterrupted) and not self.stop.at_once:
                    raise RunInterrupted(self.stop.signum, self._farewell()) from e
                raise
            self._show(metrics, clock.iteration_done())
            stop = self.stop.requested  # once: a signal after this has the next iteration's save
            if self._is_checkpoint(k + 1) or stop:
                self._save(env_states)
                clock.save_done()
            if stop:
                raise RunInterrupted(self.stop.signum, self._farewell())
            self.evaluations.after(k + 1, self.learner.policy.flat)
        self.evaluations.finish(self.last, self.learner.policy.flat, lambda: self.stop.requested)

    def iteration(self, k: int) -> tuple[dict[str, float], list[Any]]:
        """Turn version k into k + 1; returns the metrics, and the envs' states where stored."""
        with self.tracer.around(k):
            return self._iteration(k)

    def _iteration(self, k: int) -> tuple[dict[str, float], list[Any]]:
        source, started = self.source, time.monotonic()
        slots = source.gather(k)
        waited_s = time.monotonic() - started
        self.learner.load(slots)
        learn_started = time.monotonic()
        updated, (metrics, env_states) = source.beside(
            update=lambda: self.learner.update(k),
            meanwhile=lambda: self.record.read(k, slots, waited_s),
        )
        source.release(k)
        metrics |= updated
        metrics["Perf/learning_time"] = time.monotonic() - learn_started
        if metrics["Loss/undone"]:
            self.console.warn(
                f"iteration {k}: the loss or its gradient is not finite; the update was "
                f"undone, version {k + 1} has version {k}'s weights"
            )
        self.learner.publish(self.weights, k + 1)
        source.announce(k + 1)
        self.grant(k + 1 + self.config.rollout.max_policy_lag)

        # With what lies between two iterations: saves, curves, the console.
        before, self.iteration_ended = self.iteration_ended, time.monotonic()
        metrics["Perf/iteration_time"] = self.iteration_ended - before
        return self.record.add(metrics), env_states

    def grant(self, iteration: int) -> None:
        """Let the workers collect `iteration`, unless the run ends before."""
        if iteration < self.last:
            oldest = max(self.first, iteration - self.config.rollout.max_policy_lag)
            self.source.grant(oldest, iteration, self._is_checkpoint(iteration + 1))

    def _show(self, metrics: dict[str, float], eta_s: float) -> None:
        totals, done = self.record.totals, self.record.totals.iterations
        if done % self.config.logging.every == 0 or done == self.last:
            self.record.log(metrics)
            self.console.show(IterationView(done, self.last, totals.env_steps, metrics, eta_s))

    def _is_checkpoint(self, done: int) -> bool:
        planned = done % self.config.checkpoint.every == 0 or done == self.last
        return planned or self.evaluations.is_due(done)  # what is evaluated may be the best

    def _save_before(self, failed: int) -> None:
        """Save what was learned before an iteration that failed, unless that is done."""
        if failed == self.first or self._is_checkpoint(failed):
            return
        try:
            self._save([None])
        except CheckpointError as e:  # what ended the run is the error to raise
            self.console.warn(f"WARNING: {e}")

    def _save(self, env_states: list[Any]) -> None:
        final = self.record.totals.iterations == self.last or self.stop.requested
        self.record.save(self.learner.state_dict(), env_states, must_succeed=final)

    def _farewell(self) -> str:
        done = self.record.totals.iterations
        return (
            f"stopped by signal {self.stop.signum} after iteration {done}; "
            f"go on with the same command and {self._resume_key}={shlex.quote(str(self.run_dir))}"
        )


if __name__ == "__main__":
    from isaac_hydra_ext.cli.train import main  # where users know the command

    main()
