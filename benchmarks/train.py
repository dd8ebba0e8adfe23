"""Training end to end against its own simulation alone, in one run.

python -m benchmarks.train --json FILE --only go1_flat_4096 rollout.device=cuda:0
    rollout.num_workers=1 experiment.device=cuda:1 ppo.precision=bf16

All take turns, for some 45 seconds, in the same processes: iterations of training, with what they
log; where there are worker processes, as many in which they collect and nobody learns (simulation
with inference); as many rollouts of the same env driven by the policy in this process, from which
the time that the policy's own part takes is subtracted (simulation alone). A ratio is the median of
those of the turns, whose parts are seconds apart: a machine that others share is faster in one
minute than in the next.
After some iterations of real training the learning rate is 0: updates cost what they cost, and both
sides simulate the same behaviour.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_module

from benchmarks.common import markdown, run_benchmark
from isaac_hydra_ext.appo_runner import Run, open_run
from isaac_hydra_ext.config import placement
from isaac_hydra_ext.rollout.collector import Collector
from isaac_hydra_ext.rollout.in_process import InProcessCollector
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

TURNS, TURNS_S = (5, 20), 45.0  # at least and at most; in between, for so long
PART_S = 0.5  # of a turn, or one iteration
WARM_UP = 15  # iterations: caches, clocks, resets, a policy that does something
UNENDING = 10**6
# Of an iteration, as the run itself has them.
TIMES = ("Perf/collection_time", "Perf/learning_time", "Async/learner_idle_s")
TIMES += ("Async/workers_wait_s",)
CONF = "isaac_hydra_ext.conf"
# Task and size: overrides of the run.
CASES: dict[str, tuple[str, ...]] = {
    f"{name}_{num_envs}": (f"env={env}", f"rollout.envs_per_worker={num_envs}")
    for name, env in (("go1_flat", "mjlab_go1_flat"), ("cartpole", "mjlab_cartpole_balance"))
    for num_envs in (4096, 16384)
}
CASES["cpu_cartpole"] = ("env=mjlab_cartpole_balance", "rollout.envs_per_worker=64")
CASES["cpu_pendulum"] = ("env=gym_pendulum",)


def measure(cases: dict[str, tuple[str, ...]], quick: bool, overrides: list[str]) -> dict[str, Any]:
    """Run every case."""
    rows = []
    for name, case in cases.items():
        with ExitStack() as stack:
            # Users never get two processes on one GPU; here that is measured.
            stack.enter_context(patch.object(placement, "_one_process_a_gpu"))
            stack.enter_context(patch.object(placement, "_would_take_turns", lambda *_: False))
            logs = stack.enter_context(TemporaryDirectory())
            stack.enter_context(initialize_config_module(CONF, version_base="1.3"))
            fixed = (
                *(f"experiment.output_dir={logs}", f"experiment.max_iterations={UNENDING}"),
                *(f"checkpoint.every={UNENDING}", "logging.console=quiet", "logging.report=false"),
                "ppo.lr_schedule=fixed",
            )
            typed = [*case, *overrides, *fixed]
            run = stack.enter_context(open_run(compose("train_appo", typed), typed))
            turns = Turns(run)
            fewest, most = (1, 1) if quick else TURNS
            end = time.monotonic() + TURNS_S
            while turns.taken < fewest or (turns.taken < most and time.monotonic() < end):
                turns.take()
            rows.append({"case": name} | turns.summary())
        print(json.dumps(rows[-1]), flush=True)
    return {"overrides": overrides, "rows": rows}


class Turns:
    """Training and what it is compared with, in turn.

    Attributes:
        training: [s] an iteration.
        collecting: The same with nobody learning, where there are worker processes.
        simulation: [s] a rollout of one worker's envs; acting is not in it.
        acting: [s] the policy's part of a rollout.
    """

    def __init__(self, run: Run) -> None:
        """Train until there is something to simulate, then hold the policy still."""
        self._run, self._next = run, 0
        self._times: dict[str, list[float]] = {tag: [] for tag in TIMES}
        for _ in range(WARM_UP):
            self._train()
        run.algorithm.state_dict()["lr"].zero_()  # the tensor itself, not a copy
        started = time.perf_counter()
        self._train()
        once = time.perf_counter() - started
        self._each = max(1, int(PART_S / once))
        self._pause = 0.1 + 1.2 * once * (run.config.rollout.max_policy_lag + 1)
        # A simulation on a CPU is compared with its workers: they are many, this process is one.
        self._alone = not (run.config.num_workers and run.config.rollout.device == "cpu")
        self._collector, self._slot = stand_alone(run) if self._alone else (None, None)
        self._simulate()
        for values in self._times.values():
            values.clear()
        self.training: list[float] = []
        self.collecting: list[float] = []
        self.simulation: list[float] = []
        self.acting: list[float] = []

    def _train(self) -> None:
        metrics = self._run.iteration(self._next)
        self._run.record.show(metrics)
        self._next += 1
        for tag, values in self._times.items():
            values.append(metrics[tag])

    def _collect(self) -> None:
        """Do an iteration without learning."""
        run, k = self._run, self._next
        run.source.gather(k)
        run.source.release(k)
        run.publish(k + 1)
        run.grant(k + 1 + run.config.rollout.max_policy_lag)
        self._next += 1

    def take(self) -> None:
        """Take one turn of each."""
        run = self._run
        if run.config.num_workers:
            # Rollouts that workers have finished in a pause count for nobody.
            for _ in range(run.config.rollout.max_policy_lag + 1):
                self._collect()
            # They simulate on while the last update is made. Each part begins as it ends, with one
            # iteration that is not counted: else collecting would get what training has paid for.
            self._train()
        self.training.append(seconds_of(self._train, self._each))
        if run.config.num_workers:
            self._collect()
            self.collecting.append(seconds_of(self._collect, self._each))
            if self._alone:
                time.sleep(self._pause)  # workers finish what they have been granted
        if self._alone:
            simulated, acted = self._simulate()
            self.acting.append(acted)
            self.simulation.append(simulated - acted)

    def _simulate(self) -> tuple[float, float]:
        """Simulate in this process; returns a rollout's seconds, and those of acting alone."""
        if self._collector is None or self._slot is None:
            return 0.0, 0.0
        collector, slot, steps = self._collector, self._slot, self._run.config.rollout.steps_per_env
        collector.policy.flat.copy_(self._run.algorithm.policy.flat)
        both = seconds_of(lambda: simulate(collector, slot, steps), self._each)
        return both, seconds_of(lambda: act(collector, slot, steps), self._each)

    @property
    def taken(self) -> int:
        """How many turns there are."""
        return len(self.training)

    def summary(self) -> dict[str, Any]:
        """Return the row."""
        config, n = self._run.config, self._run.config.n_buffer
        end_to_end = statistics.median(self.training)
        row = {
            "num_envs": n // config.rollout.steps_per_env,
            "workers": config.num_workers,
            "simulation": config.rollout.device,
            "turns": self.taken,
            "learner": str(self._run.device),
            "lag": config.rollout.max_policy_lag,
            "precision": config.ppo.precision,
            "iterations_a_turn": self._each,
            "training_steps_per_s": round(n / end_to_end),
            "iteration_ms": _ms(self.training),
            **{f"{tag} [ms]": _ms([statistics.median(v)])[0] for tag, v in self._times.items()},
        }
        if self.collecting:
            collecting = statistics.median(self.collecting)
            row |= {"collecting_ms": _ms(self.collecting)}
            row |= {"collecting_steps_per_s": round(n / collecting)}
            row |= _ratios("collecting", self.collecting, self.training)
        if self.simulation:
            # This process has simulated for one of the workers.
            simulation = statistics.median(self.simulation) / config.num_collectors
            row |= {"simulation_ms": _ms(self.simulation), "acting_ms": _ms(self.acting)}
            row |= {"simulation_steps_per_s": round(n / simulation)}
            row |= _ratios("simulation", self.simulation, self.training)
        return row


def _ratios(name: str, others: list[float], training: list[float]) -> dict[str, Any]:
    """Return the median of the turns' ratios, and what the middle half of them lies between."""
    ratios = [a / b for a, b in zip(others, training, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    middle = [round(quartiles[0], 3), round(quartiles[2], 3)]
    return {f"ratio_to_{name}": round(quartiles[1], 4), f"middle_half_{name}": middle}


def _ms(seconds: list[float]) -> list[float]:
    return [round(1e3 * s, 2) for s in seconds]


def stand_alone(run: Run) -> tuple[Collector, Slot]:
    """Return what simulates in this process: the run's own env, or one like the worker's."""
    if isinstance(run.source, InProcessCollector):
        collector = run.source.collector
    else:
        collector = Collector(run.config, 0, 99, run.run_dir)
    layout = SlotLayout.of(run.spec, run.config.rollout.steps_per_env, run.algorithm.policy)
    slot = Slot.allocate(layout, str(collector.device))
    for group, obs in collector.obs.items():
        slot.obs[group][0].copy_(obs)
    return collector, slot


@torch.no_grad()
def simulate(collector: Collector, slot: Slot, steps: int) -> None:
    """Take a rollout's steps, and keep of each what the next action is chosen from."""
    acting = collector.acting_on(slot)
    acting.begin(noise(collector, slot), {})
    for t in range(steps):
        result = collector.env.step(acting.act(t))
        for group, obs in result.obs.items():
            slot.obs[group][t + 1].copy_(obs)
    for obs in slot.obs.values():
        obs[0].copy_(obs[-1])


@torch.no_grad()
def act(collector: Collector, slot: Slot, steps: int) -> None:
    """Do the policy's part of `simulate`, on observations that are there already."""
    acting = collector.acting_on(slot)
    acting.begin(noise(collector, slot), {})
    for t in range(steps):
        acting.act(t)


def noise(collector: Collector, slot: Slot) -> torch.Tensor:
    """Draw a rollout's action noise."""
    generator = torch.Generator(collector.device)
    return collector.policy.distribution.draw_noise(tuple(slot.reward_TB.shape), generator)


def seconds_of(function: Callable[[], None], times: int) -> float:
    """Return the mean duration of a call [s]."""
    synchronize()
    started = time.perf_counter()
    for _ in range(times):
        function()
    synchronize()
    return (time.perf_counter() - started) / times


def synchronize() -> None:
    """Wait for all GPUs."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.cuda.synchronize(index)


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("case", "W", "L", "simulation on", "learner on", "precision", "training steps/s")
    header += ("of collecting", "middle half", "of simulation alone", "middle half")
    keys = ("case", "workers", "lag", "simulation", "learner", "precision", "training_steps_per_s")
    keys += ("ratio_to_collecting", "middle_half_collecting")
    keys += ("ratio_to_simulation", "middle_half_simulation")
    return markdown(header, [[row.get(key, "-") for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    run_benchmark(__doc__ or "", CASES, measure, render, takes_overrides=True)
