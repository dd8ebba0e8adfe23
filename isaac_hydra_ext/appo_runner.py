"""The run, top to bottom: compose -> spawn -> iterate -> checkpoint -> close.

    python -m isaac_hydra_ext.appo_runner env=gym_pendulum rollout.num_workers=2

This file is orchestration only, and all of it runs in the learner's process, in its main thread.
Iteration k trains on exactly rollout k of every worker and turns policy version k into k + 1.
Rollout k may use any version from max(first, k - L) on, so publishing version v lets the workers
start rollout v + L; with L = 0 that is synchronous PPO, with L >= 1 they simulate while we learn.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isaac_hydra_ext.checkpoint import (
    Checkpoint,
    check_fits,
    delete_old,
    find_checkpoint,
    save_checkpoint,
)
from isaac_hydra_ext.command_line import end_process, run_hydra_app, run_reporting_errors
from isaac_hydra_ext.config import RunConfig, complete, load_config
from isaac_hydra_ext.console import Clock, Progress, RunConsole
from isaac_hydra_ext.envs.registry import describe_task, needs_simulator
from isaac_hydra_ext.envs.vec_env import EnvSpec, TaskDescription
from isaac_hydra_ext.errors import ConfigError, EnvError, RunInterrupted, WorkerError
from isaac_hydra_ext.explain import asked_for, explain_task, strip_flags
from isaac_hydra_ext.learner.learner import Learner
from isaac_hydra_ext.metrics import (
    EpisodeTracker,
    RunTotals,
    TensorBoardLogger,
    collection_metrics,
    write_summary,
)
from isaac_hydra_ext.rollout.buffer import Slot
from isaac_hydra_ext.rollout.in_process import InProcessCollector
from isaac_hydra_ext.rollout.shared_memory import register_with_cuda, unregister_from_cuda
from isaac_hydra_ext.rollout.worker_pool import WorkerPool
from isaac_hydra_ext.run_dir import make_run_dir, runs_root, write_inputs
from isaac_hydra_ext.stop_signals import StopSignals

UPDATE_TIMEOUT_S = 3600.0  # of an update in its background thread


def train(
    cfg: DictConfig,
    typed: Sequence[str] = (),
    package: str = "",
    announce: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """Run one training from a composed configuration.

    Args:
        cfg: With the groups of this package's `conf/` at its top level.
        typed: The user's override tokens, which beat what a task recommends.
        package: Where `cfg` lies in the application's configuration, e.g. `appo`.
        announce: Told of the run's directory, before any env is built.

    Returns:
        The content of `summary.json`, and `run_dir`.

    Raises:
        IsaacHydraExtError: With one line that says what to do. Nothing is left running.
    """
    if package:
        typed = [token.lstrip("+").removeprefix(f"{package}.") for token in typed]
    config = load_config(cfg, typed)
    console = RunConsole(config.logging.console)
    with ExitStack() as stack:
        stack.callback(console.close)
        stop = stack.enter_context(StopSignals())
        task = None if needs_simulator(config.env) else describe_task(config.env)
        if task is not None:  # what is wrong can then be said before any process starts
            config, resumed = _complete(cfg, typed, config, task, console)
        source = (
            WorkerPool(config.num_workers, console.warn)
            if config.num_workers
            else InProcessCollector()
        )
        stack.callback(source.close)
        if task is None:
            task = source.describe(config)
            config, resumed = _complete(cfg, typed, config, task, console)
        run_dir = make_run_dir(config)
        write_inputs(run_dir, cfg, typed, config, task.env_config)
        if announce is not None:
            announce(run_dir)
        console.say(f"run directory: {run_dir}")
        run = Run(config, run_dir, console, stop)
        run.build(source, resumed)
        return run.iterate()


def _complete(
    cfg: DictConfig,
    typed: Sequence[str],
    config: RunConfig,
    task: TaskDescription,
    console: RunConsole,
) -> tuple[RunConfig, Checkpoint | None]:
    """Load the configuration again, above what the task recommends; find what it resumes."""
    seed = config.experiment.seed
    config = load_config(cfg, typed, task.settings)
    config.experiment.seed = seed  # -1 is drawn once
    for note in (*task.notes, *complete(config, task.default_num_envs, typed)):
        console.say(note)
    if config.resume is None:
        return config, None
    checkpoint, notes = find_checkpoint(config.resume, runs_root(config))
    for note in notes:
        console.warn(note)
    done, total = checkpoint.meta["iteration"], config.total_iterations
    if done >= total:
        raise ConfigError(
            f"resume={config.resume}: {done} of {total} iterations are done; raise "
            "experiment.max_iterations (the total) to go on"
        )
    console.say(f"resuming {checkpoint.path} at iteration {done}")
    return config, checkpoint


def choose_device(config: RunConfig) -> torch.device:
    """Return the learner's device; `auto` takes the first GPU that there is."""
    if config.experiment.device != "auto":
        return torch.device(config.experiment.device)
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def set_learner_threads(config: RunConfig) -> None:
    """Leave the workers their cores. One thread where results must not depend on the machine."""
    background = config.num_workers == 0 and config.rollout.max_policy_lag > 0
    free = len(os.sched_getaffinity(0)) - config.num_collectors
    one = config.rollout.deterministic or background
    torch.set_num_threads(1 if one else max(1, free))


class Run:
    """One training run: the parts, and the loop over them."""

    def __init__(
        self, config: RunConfig, run_dir: Path, console: RunConsole, stop: StopSignals
    ) -> None:
        """Hold what the run is made with; `build` makes the rest."""
        self.config, self.run_dir, self.console, self.stop = config, run_dir, console, stop
        self.totals = RunTotals()
        self.first = 0
        self.pinned = False
        self.status = "failed"  # until it is not
        self.summary: dict[str, Any] = {}

    def build(self, source: WorkerPool | InProcessCollector, resumed: Checkpoint | None) -> None:
        """Build envs, learner and buffer, load the checkpoint, publish the first version."""
        config, self.source = self.config, source
        workers, lag = config.num_workers, config.rollout.max_policy_lag
        self.console.say(f"starting {workers or 'no'} worker processes; logs in workers/")
        if resumed is not None and not self._same_envs(resumed):
            resumed.meta["env_states"] = None
            resumed.meta["episodes"].pop("running", None)
        env_state_from = resumed.path if resumed and resumed.meta["env_states"] else None
        self.spec: EnvSpec = source.build(config, self.run_dir / "workers", env_state_from)
        self.device = choose_device(config)
        set_learner_threads(config)
        self.learner = Learner(config, self.spec, self.device)
        self.episodes = EpisodeTracker(
            config.num_collectors, self.spec.num_envs, source.random_start
        )
        if resumed is not None:
            self._load(resumed)
        policy = self.learner.policy
        self.weights = source.attach(policy.distribution.action_dtype, policy.flat.numel())
        if self.device.type == "cuda" and isinstance(source, WorkerPool):
            self.pinned = register_with_cuda(source.memory)
            if not self.pinned:
                self.console.say("the buffer cannot be pinned for CUDA: copies are slower")
        self.weights.publish(self.first, policy.flat)
        source.announce(self.first)
        for iteration in range(self.first, self.first + lag + 1):
            self._grant(iteration)
        self.console.say(
            f"N_buffer = {config.num_collectors} x {self.spec.num_envs} x "
            f"{config.rollout.steps_per_env} = {config.n_buffer} samples; "
            f"{policy.num_params:,} parameters; learner on {self.device}"
        )
        bootstrap = "the env's final observation" if self.spec.has_final_obs else "V(s_t)"
        if self.spec.finite_horizon:
            bootstrap = "nothing: a finite horizon"
        self.console.say(f"truncated episodes bootstrap from {bootstrap}")

    def _same_envs(self, resumed: Checkpoint) -> bool:
        """Return whether the checkpoint's env states are of as many workers and envs as here."""
        rollout = resumed.meta["config"]["rollout"]
        workers = max(1, int(rollout["num_workers"]))
        ours = (self.config.num_collectors, self.config.rollout.envs_per_worker)
        return (workers, rollout["envs_per_worker"]) == ours

    def _load(self, resumed: Checkpoint) -> None:
        """Take over everything a checkpoint holds."""
        check_fits(resumed, self.learner.state_dict(), self.spec.to_json())
        self.learner.load_state_dict(resumed.tensors)
        self.episodes.load_state_dict(resumed.meta["episodes"])
        self.totals = RunTotals(**resumed.meta["totals"])
        # What was in flight when the checkpoint was written has gone with that process.
        self.totals.samples_abandoned = self.totals.samples_produced - self.totals.samples_consumed
        self.first = resumed.meta["iteration"]
        if not resumed.meta["env_states"]:
            self.console.say("no env states of these envs here: all episodes start anew")
        elif not self.spec.whole_state:
            self.console.say("the envs' curriculum goes on; all episodes start anew")

    def iterate(self) -> dict[str, Any]:
        """Learn until the last iteration, a signal, or an error; returns the summary."""
        config, source, total = self.config, self.source, self.config.total_iterations
        self.tracker = TensorBoardLogger(self.run_dir) if config.logging.backends else None
        self.console.start(f"APPO {config.experiment.name}")
        clock = Clock(total)
        background = config.num_workers == 0 and config.rollout.max_policy_lag > 0
        with ExitStack() as stack:
            if self.tracker is not None:
                stack.callback(self.tracker.close)
            stack.callback(self._finish)
            updater = stack.enter_context(ThreadPoolExecutor(1)) if background else None
            for k in range(self.first, total):
                started = time.monotonic()
                slots = self._gather(k)
                idle_s = time.monotonic() - started
                self.episodes.observe(slots)
                self.learner.load(slots)
                extras = [slot.read_extra() for slot in slots]
                metrics = collection_metrics(k, slots, extras, idle_s)
                source.release(k)

                learn_started = time.monotonic()
                metrics |= self._update(k, updater)
                metrics["Perf/learning_time"] = time.monotonic() - learn_started
                self.weights.publish(k + 1, self.learner.policy.flat)
                source.announce(k + 1)
                self._grant(k + 1 + config.rollout.max_policy_lag)

                iteration_s = time.monotonic() - started
                metrics["Perf/iteration_time"] = iteration_s
                metrics |= self.totals.add(metrics, self.episodes, config.n_buffer)
                metrics |= self.totals.sample_metrics(source.counts)
                self._show(metrics, clock.tick(iteration_s, k + 1), total)
                if self._is_checkpoint(k + 1) or self.stop.requested:
                    self._save([extra.get("env_state") for extra in extras])
                if self.stop.requested:
                    self.status = "interrupted"
                    raise RunInterrupted(self.stop.signum, self._farewell())
            self.status = "completed"
        return {**self.summary, "run_dir": str(self.run_dir)}

    def _grant(self, iteration: int) -> None:
        """Let the workers collect `iteration`, unless the run ends before."""
        if iteration < self.config.total_iterations:
            oldest = max(self.first, iteration - self.config.rollout.max_policy_lag)
            self.source.grant(oldest, iteration, self._is_checkpoint(iteration + 1))

    def _gather(self, iteration: int) -> list[Slot]:
        """Wait for the iteration's rollouts; if they cannot come, save what has been learned."""
        try:
            return self.source.gather(iteration)
        except (WorkerError, EnvError):
            if iteration > self.first:
                self._save([None])
            raise

    def _update(self, iteration: int, updater: ThreadPoolExecutor | None) -> dict[str, float]:
        """Learn; with W = 0 and L >= 1 collect the next rollout meanwhile."""
        if updater is None:
            return self.learner.update(iteration)
        assert isinstance(self.source, InProcessCollector)
        update: Future[dict[str, float]] = updater.submit(self.learner.update, iteration)
        self.source.collect_ahead(iteration + 1)
        wait([update], timeout=UPDATE_TIMEOUT_S)
        if not update.done():
            raise WorkerError(f"iteration {iteration}: no update after {UPDATE_TIMEOUT_S:g} s")
        return update.result(timeout=0)

    def _show(self, metrics: dict[str, float], eta_s: float, total: int) -> None:
        done = self.totals.iterations
        if done % self.config.logging.every == 0 or done == total:
            if self.tracker is not None:
                self.tracker.log(metrics, done)
            self.console.show(Progress(done, total, self.totals.env_steps, metrics, eta_s))

    def _is_checkpoint(self, done: int) -> bool:
        return done % self.config.checkpoint.every == 0 or done == self.config.total_iterations

    def _save(self, env_states: list[Any]) -> None:
        """Write a checkpoint of everything after this iteration, and the summary."""
        whole = all(state is not None for state in env_states)
        totals = asdict(self.totals) | self.totals.with_counts(self.source.counts)
        meta = {
            "env_steps": self.totals.env_steps,
            "config": self.config.to_dict(),
            "spec": self.spec.to_json(),
            "episodes": self.episodes.state_dict(whole and self.spec.whole_state),
            "env_states": env_states if whole else None,
            "totals": totals,
        }
        directory = self.run_dir / "checkpoints"
        save_checkpoint(directory, self.totals.iterations, self.learner.state_dict(), meta)
        delete_old(directory, self.config.checkpoint)
        self._summarize("running")

    def _finish(self) -> None:
        """Close the workers, which settles the counts, and write the last summary."""
        if self.pinned and isinstance(self.source, WorkerPool):
            unregister_from_cuda(self.source.memory)
        failures = self.source.close(0.0) if self.stop.at_once else self.source.close()
        self._summarize(self.status)
        for failure in failures:
            self.console.warn(failure)

    def _summarize(self, status: str) -> None:
        self.summary = write_summary(
            self.run_dir / "summary.json",
            status,
            self.totals,
            self.source.counts,
            self.episodes,
            self.device,
        )

    def _farewell(self) -> str:
        return (
            f"stopped by signal {self.stop.signum} after iteration {self.totals.iterations}; "
            f"go on with resume={self.run_dir}"
        )


@hydra.main(version_base="1.3", config_path="pkg://isaac_hydra_ext.conf", config_name="train_appo")
def _hydra_task(cfg: DictConfig) -> float | None:
    return run_from_hydra(cfg)


def run_from_hydra(cfg: DictConfig, announce: Callable[[Path], None] | None = None) -> float | None:
    """Train inside a `hydra.main` function; ends the process where the run has failed.

    Args:
        cfg: What Hydra composed.
        announce: See `train`.

    Returns:
        The mean return, which is what a Hydra sweeper optimises.
    """
    summary: dict[str, Any] = {}
    # Unresolved: an override that names an environment variable must not become its value.
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    code = run_reporting_errors(lambda: summary.update(train(cfg, typed, announce=announce)))
    if code:
        sys.exit(code)
    run_dir = Path(summary["run_dir"])
    print(f"run: {run_dir}")
    print(f"tensorboard --logdir {run_dir}")
    newest = run_dir / "checkpoints" / f"model_{summary['iterations']}.safetensors"
    print(f"checkpoint: {newest}")
    print(f"evaluate: appo eval {run_dir}", flush=True)
    return summary["mean_return"]


def main() -> None:
    """Run the command line; exits with the error's code."""
    task = _hydra_task
    if asked_for(sys.argv):
        sys.argv, task = strip_flags(sys.argv), explain_task
    end_process(run_hydra_app(task))


if __name__ == "__main__":
    main()
