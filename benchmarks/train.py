"""Training end to end against its own simulation alone, in one run.

python -m benchmarks.train --json FILE --only go1_flat_4096 rollout.device=cuda:0
    rollout.num_workers=1 experiment.device=cuda:1 ppo.precision=bf16

Both take turns, three times, in the same processes: iterations of training, then as many rollouts
of the same env driven by the policy as it is then, from which the time that the policy's own part
takes is subtracted. Medians.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_module

from benchmarks import free_env
from benchmarks.common import markdown, run_benchmark
from isaac_hydra_ext.appo_runner import Run, open_run
from isaac_hydra_ext.rollout.buffer import Slot, SlotLayout
from isaac_hydra_ext.rollout.collector import Collector
from isaac_hydra_ext.rollout.in_process import InProcessCollector

TURNS = 3
WARM_UP = 3  # iterations: caches, clocks, the curriculum's first resets
UNENDING = 10**6
CONF = "isaac_hydra_ext.conf"


@dataclass(frozen=True)
class Case:
    """One task and size.

    Attributes:
        overrides: Of the run.
        seconds: About how long one turn of training lasts.
    """

    overrides: tuple[str, ...]
    seconds: float = 6.0


GPU_CASES = {
    f"{name}_{num_envs}": Case((f"env={env}", f"rollout.envs_per_worker={num_envs}"))
    for name, env in (("go1_flat", "mjlab_go1_flat"), ("cartpole", "mjlab_cartpole_balance"))
    for num_envs in (4096, 16384)
}
FREE = (
    *("env=gym_any", f"env.kind={free_env.KIND}", "env.id=free", "+env.kwargs.critic=72"),
    *("policy.hidden_dims=[512,256,128]", "rollout.envs_per_worker=4096"),
    *("rollout.steps_per_env=24", "ppo.num_mini_batches=4"),
)
CASES = {
    **GPU_CASES,
    "free_4096": Case(FREE, seconds=2.0),
    "cpu_cartpole": Case(("env=mjlab_cartpole_balance", "rollout.envs_per_worker=64")),
    "cpu_pendulum": Case(("env=gym_pendulum",)),
}


def measure(cases: dict[str, Case], quick: bool, overrides: list[str]) -> dict[str, Any]:
    """Run every case."""
    rows = []
    for name, case in cases.items():
        with ExitStack() as stack:
            stack.enter_context(free_env.registered())
            logs = stack.enter_context(TemporaryDirectory())
            stack.enter_context(initialize_config_module(CONF, version_base="1.3"))
            fixed = (
                *(f"experiment.output_dir={logs}", f"experiment.max_iterations={UNENDING}"),
                *(f"checkpoint.every={UNENDING}", "logging.console=quiet", "logging.report=false"),
            )
            typed = [*case.overrides, *overrides, *fixed]
            run = stack.enter_context(open_run(compose("train_appo", typed), typed))
            rows.append({"case": name} | take_turns(run, 0.2 if quick else case.seconds))
        print(json.dumps(rows[-1]), flush=True)
    return {"overrides": overrides, "rows": rows}


def take_turns(run: Run, seconds: float) -> dict[str, Any]:
    """Train and simulate in turns."""
    k = 0
    for k in range(WARM_UP):
        run.iteration(k)
    started = time.perf_counter()
    run.iteration(k + 1)
    k, each = k + 2, max(2, int(seconds / (time.perf_counter() - started)))
    collector, slot = stand_alone(run)
    steps = run.config.rollout.steps_per_env
    training, simulation, acting = [], [], []
    ahead = run.config.rollout.max_policy_lag + 1  # rollouts that workers finish in a pause
    for _ in range(TURNS):
        for _ in range(ahead if run.config.num_workers else 0):
            run.iteration(k)
            k += 1
        started = time.perf_counter()
        for _ in range(each):
            run.iteration(k)
            k += 1
        synchronize()
        training.append((time.perf_counter() - started) / each)
        settle(run)
        collector.policy.flat.copy_(run.learner.policy.flat)
        both = seconds_of(lambda: simulate(collector, slot, steps), each)
        alone = seconds_of(lambda: act(collector, slot, steps), each)
        acting.append(alone)
        simulation.append(both - alone)
    n = run.config.n_buffer
    end_to_end, sim = statistics.median(training), statistics.median(simulation)
    return {
        "num_envs": n // steps,
        "workers": run.config.num_workers,
        "simulation": run.config.rollout.device,
        "learner": str(run.device),
        "lag": run.config.rollout.max_policy_lag,
        "precision": run.config.ppo.precision,
        "iterations_a_turn": each,
        "training_steps_per_s": round(n / end_to_end),
        "simulation_steps_per_s": round(n / sim),
        "ratio": round(sim / end_to_end, 4),
        "acting_ms": round(1e3 * statistics.median(acting), 2),
        "iteration_ms": [round(1e3 * t, 2) for t in training],
        "simulation_ms": [round(1e3 * t, 2) for t in simulation],
        "gpu_peak_MiB": round(torch.cuda.max_memory_allocated() / 2**20)
        if torch.cuda.is_available()
        else 0,
    }


def stand_alone(run: Run) -> tuple[Collector, Slot]:
    """Return what simulates in this process: the run's own env, or one like the worker's."""
    if isinstance(run.source, InProcessCollector):
        collector = run.source.collector
    else:
        collector = Collector(run.config, 0, 99, run.run_dir)
    layout = SlotLayout(
        run.spec, run.config.rollout.steps_per_env, run.learner.policy.distribution.action_dtype
    )
    slot = Slot.allocate(layout, str(collector.device))
    for group, obs in collector.obs.items():
        slot.obs[group][0].copy_(obs)
    return collector, slot


@torch.inference_mode()
def simulate(collector: Collector, slot: Slot, steps: int) -> None:
    """Take a rollout's steps, and keep of each what the next action is chosen from."""
    acting = collector.acting_on(slot)
    acting.begin(noise(collector, slot))
    for t in range(steps):
        result = collector.env.step(acting.act(t))
        for group, obs in result.obs.items():
            slot.obs[group][t + 1].copy_(obs)
    for obs in slot.obs.values():
        obs[0].copy_(obs[-1])


@torch.inference_mode()
def act(collector: Collector, slot: Slot, steps: int) -> None:
    """Do the policy's part of `simulate`, on observations that are there already."""
    acting = collector.acting_on(slot)
    acting.begin(noise(collector, slot))
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


def settle(run: Run) -> None:
    """Give workers the time to finish what they have been granted."""
    if run.config.num_workers:
        time.sleep(1.0 + 3.0 * run.config.rollout.max_policy_lag)


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("case", "W", "L", "simulation on", "learner on", "precision", "training steps/s")
    header += ("simulation alone", "ratio")
    keys = ("case", "workers", "lag", "simulation", "learner", "precision", "training_steps_per_s")
    keys += ("simulation_steps_per_s", "ratio")
    return markdown(header, [[row[key] for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    run_benchmark(__doc__ or "", CASES, measure, render, takes_overrides=True)
