"""The run, top to bottom: compose -> spawn -> iterate -> checkpoint -> close.

    python -m isaac_hydra_ext.appo_runner env=gym_pendulum rollout.num_workers=2

Orchestration only, in the learner's main thread. Iteration k trains on exactly rollout k of every
collector and turns policy version k into k + 1. Rollout k may use any version from
max(first, k - L) on, so publishing version v lets the workers start rollout v + L; with L = 0 that
is synchronous PPO, with L >= 1 they simulate while we learn.
"""

if __name__ == "__main__":  # the command imports torch itself, once the workers are started
    from isaac_hydra_ext.cli.train import main

    main()

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from isaac_hydra_ext.config.placement import learner_device, set_learner_threads
from isaac_hydra_ext.config.reading import complete, read
from isaac_hydra_ext.envs.loading import configure
from isaac_hydra_ext.learner.algorithm import make_algorithm
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.memory import check_memory
from isaac_hydra_ext.run.directory import RunDirectory
from isaac_hydra_ext.run.evaluations import Evaluations
from isaac_hydra_ext.run.ranks import joined
from isaac_hydra_ext.run.record import RunRecord
from isaac_hydra_ext.run.resume import find_resumed, last_iteration, restore
from isaac_hydra_ext.run.saves import OnIteration, Saves
from isaac_hydra_ext.run.start import Opened, about, learner_tracer
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.terminal.console import RunConsole
from isaac_hydra_ext.trackers.trackers import check_trackers
from isaac_hydra_ext.workers.sources import make_source


def train(
    cfg: DictConfig, typed: Sequence[str] = (), package: str = "", on_iteration: OnIteration = None
) -> dict[str, Any]:
    """Run one training from a composed configuration; see `open_run` and `OnIteration`.

    Returns:
        The content of `summary.json`, and `run_dir`.

    Raises:
        IsaacHydraExtError: With one line that says what to do. Nothing is left running.
    """
    with open_run(cfg, typed, package) as run:
        run.iterate(on_iteration)
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
    settings = read(cfg, typed, package)
    config = configure(settings)
    check_trackers(config.logging)
    with ExitStack() as stack:
        console = stack.enter_context(RunConsole(config.logging.console, config.seat.rank))
        stop = stack.enter_context(StopSignals())
        directory = stack.enter_context(RunDirectory(config, announce, lasting))
        ranks = stack.enter_context(joined(config, stop, train, cfg, typed, package))
        settings = ranks.same_seed(settings)
        source = make_source(config, stop, console.warn)
        stack.callback(source.close)
        stop.beside_table = console.starting(source.activities, shared=config.num_workers == 0)
        task = source.describe()
        config = configure(settings, task.settings, config.num_workers)
        notes = complete(config, task.default_num_envs, settings.typed, settings.user)
        console.say(*settings.notes, *task.notes, *notes)
        resumed = find_resumed(config, console, ranks)
        config.experiment.max_iterations = last_iteration(config, resumed)
        run_dir = directory.settle(config, settings.typed, task.env_config, ranks)
        console.say(f"run directory: {run_dir}")
        opened = Opened(config, run_dir, console, stop, source, ranks, resumed, settings)
        yield directory.keep(Run(opened, stack))


class Run:
    """One training run: its parts, and the loop over them."""

    def __init__(self, opened: Opened, closing: ExitStack) -> None:
        """Build envs, learner and buffer, load the checkpoint, publish the first version.

        `closing` is given what is to be done at the end. The rest is what `open_run` has made.
        """
        config, run_dir, console, stop, source, ranks, resumed, settings = opened
        self.config, self.run_dir, self.console, self.stop = config, run_dir, console, stop
        self.source, self.ranks = source, ranks
        self.device = torch.device(learner_device(config))
        self.first = resumed.meta["iteration"] if resumed else 0
        self.last, self.lag = config.experiment.max_iterations, config.rollout.max_policy_lag
        typed, key = settings.typed, settings.resume_key
        self.record = RunRecord(config, run_dir, self.device, source, console, stop, typed, ranks)
        self.evaluations = Evaluations(config, run_dir, self.record, console)
        closing.enter_context(self.record)
        closing.callback(self.evaluations.close, lambda: stop.at_once)
        closing.callback(console.close)  # others may print after this
        closing.callback(stop.begin_closing)

        console.say_notes(source.notes)
        set_learner_threads(config)
        env_states = resumed.meta["env_states"] if resumed else None
        self.spec = source.build(config, run_dir, env_states, self.first)
        stop.keep()
        stop.raise_if_requested()
        check_memory(config, self.spec, learner_on_cpu=self.device.type == "cpu")
        self.algorithm = make_algorithm(config, self.spec, self.device, ranks.group)
        restore(self.algorithm, resumed, self.spec, config, console.warn, ranks)
        self.algorithm.capture()
        stop.keep()
        policy = self.algorithm.policy
        layout = SlotLayout.of(self.spec, config.rollout.steps_per_env, policy)
        self.weights = source.attach(layout, policy.flat.numel(), self.device)
        console.say_notes(source.notes, self.algorithm.notes)
        console.say(*about(config, self.spec, policy, self.device, console.warn))

        self.record.begin(self.spec, resumed, self.algorithm.shown)
        self.saves = Saves(config, self.record, self.algorithm, self.evaluations, stop, key)
        self.tracer = learner_tracer(config, run_dir, self.device, self.first, console.say)
        self.publish(self.first)
        for iteration in range(self.first, self.first + self.lag + 1):
            self.grant(iteration)
        self.evaluations.start(self.spec, policy.flat.numel())

    def iterate(self, on_iteration: OnIteration = None) -> None:
        """Learn until the last iteration, or until `on_iteration` returns False.

        Raises:
            RunInterrupted: A signal ended it before; everything is saved.
        """
        self.stop.beside_table = self.console.start(f"APPO {self.config.experiment.name}")
        for k in range(self.first, self.last):
            self.stop.keep()
            with self.saves.rescuing(k), self.tracer.around(k):
                metrics = self.iteration(k)
            self.record.show(metrics)
            if not self.saves.after(k + 1, metrics, on_iteration):
                self.last = k + 1
                break
            self.evaluations.after(k + 1, self.algorithm.policy.flat)
        self.evaluations.finish(self.last, self.algorithm.policy.flat, self.stop)

    def iteration(self, k: int) -> dict[str, float]:
        """Turn version k into k + 1; returns the metrics by tag."""
        with self.record.timed("Async/learner_idle_s"):
            slots = self.source.gather(k)
            self.ranks.group.exchange("ready")  # what follows waits for no worker
        self.algorithm.load(slots)
        with self.record.timed("Perf/learning_time"):
            learned, read_off = self.source.beside(
                lambda: self.algorithm.update(k), meanwhile=lambda: self.record.read(k, slots)
            )
        self.source.release(k)
        self.publish(k + 1)
        self.grant(k + 1 + self.lag)
        return self.record.add(read_off | learned)

    def publish(self, version: int) -> None:
        """Let every collector have `version`, which the algorithm's weights now are."""
        self.algorithm.publish(self.weights, version)
        self.source.announce(version)

    def grant(self, iteration: int) -> None:
        """Let every collector collect `iteration`, unless the run ends before."""
        if iteration < self.last:
            oldest = max(self.first, iteration - self.lag)
            self.source.grant(oldest, iteration, self.saves.is_due(iteration + 1))
