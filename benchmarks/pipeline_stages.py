"""One env instance of B against two of B/2, one simulating while the policy acts on the other.

python -m benchmarks.pipeline_stages --json benchmarks/results/pipeline_stages.json
python -m benchmarks.pipeline_stages --device cuda --only go1 --json FILE

What RLinf calls `rollout.pipeline_stages=2`, as a prototype: our collector's env and policy, halves
that alternate, and a thread that steps one while this one acts on the other. On a GPU each half has
a CUDA stream. Beside it the halves in turn, in one thread: what halving costs alone; and on a CPU
two processes with B each: what the same second core gains as a second worker. All take turns,
rollout by rollout; ratios are of samples a second. On a CPU the parts are in its own seconds, which
hardly depend on what else the machine does: the best case is if one half's acting hid behind the
other's simulation entirely, and handing over were free.
"""

import argparse
import contextlib
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.common import markdown, run_benchmark
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import StepResult
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.rollout.collector import Collector
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

SMALL, LARGE = [64, 64], [1024, 1024, 512]
CHEETAH = {"kind": "gym", "id": "HalfCheetah-v5"}
CARTPOLE = {"kind": "mjlab", "task": "Mjlab-Cartpole-Balance"}
GO1 = {"kind": "mjlab", "task": "Mjlab-Velocity-Flat-Unitree-Go1"}
TASKS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "cheetah, small": {"env": CHEETAH, "envs": 64, "steps": 4, "hidden": SMALL},
        "cheetah, large": {"env": CHEETAH, "envs": 64, "steps": 4, "hidden": LARGE},
        "cartpole, large": {"env": CARTPOLE, "envs": 64, "steps": 4, "hidden": LARGE},
    },
    "cuda": {
        "go1": {"env": GO1, "envs": 4096, "steps": 24, "hidden": [512, 256, 128]},
        "go1, large": {"env": GO1, "envs": 4096, "steps": 24, "hidden": LARGE},
    },
}
ROUNDS, SECONDS = 300, 20.0  # at most, and for about so long; of one task
START_TIMEOUT_S, ROLLOUT_TIMEOUT_S = 300.0, 120.0


class Stage:
    """One env instance with its policy, on a CUDA stream of its own if it is one of two."""

    def __init__(self, task: dict[str, Any], envs: int, index: int, alone: bool) -> None:
        """Build the env and reset it."""
        cuda = task["device"] != "cpu"
        self._stream = torch.cuda.Stream() if cuda and not alone else None
        self.steps = task["steps"]
        with self.on_stream(), TemporaryDirectory() as run_dir:
            self._collector = Collector(_config(task, envs), index, 0, Path(run_dir))
            collector = self._collector
            layout = SlotLayout.of(collector.env.spec, self.steps, collector.policy)
            self._slot = Slot.allocate(layout, str(collector.device))
            for group, obs in collector.obs.items():
                self._slot.obs[group][-1].copy_(obs)
            self._acting = collector.acting_on(self._slot)

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        """Have torch and mjlab's warp launch on this stage's stream, in this thread."""
        if self._stream is None:
            yield
            return
        import warp

        ours = warp.ScopedStream(warp.stream_from_torch(self._stream), sync_enter=False)
        with torch.cuda.stream(self._stream), ours:
            yield

    @torch.no_grad()
    def begin(self) -> None:
        """Start a rollout where the last one ended."""
        with self._torch_stream():
            collector, slot = self._collector, self._slot
            for obs in slot.obs.values():
                obs[0].copy_(obs[-1])
            generator = torch.Generator(collector.device)
            shape = tuple(slot.reward_TB.shape)
            self._acting.begin(collector.policy.distribution.draw_noise(shape, generator), {})

    @torch.no_grad()
    def act(self, t: int) -> torch.Tensor:
        """Return the actions of step t."""
        with self._torch_stream():
            return self._acting.act(t)

    def step(self, action: torch.Tensor) -> StepResult:
        """Simulate one step; warp's stream is the process's, so one stage at a time."""
        with self.on_stream():
            return self._collector.env.step(action)

    @torch.no_grad()
    def keep(self, t: int, result: StepResult) -> None:
        """Write what step t gave into the slot."""
        with self._torch_stream():
            for group, obs in result.obs.items():
                self._slot.obs[group][t + 1].copy_(obs)
            self._slot.reward_TB[t].copy_(result.reward_B)

    def _torch_stream(self) -> contextlib.AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()

    def rollout(self) -> None:
        """Collect alone."""
        self.begin()
        for t in range(self.steps):
            self.keep(t, self.step(self.act(t)))

    def only_act(self) -> None:
        """Do the policy's part of a rollout."""
        self.begin()
        for t in range(self.steps):
            self.act(t)

    def close(self) -> None:
        """Close the env."""
        self._collector.env.close()


def _config(task: dict[str, Any], envs: int) -> RunConfig:
    config = load_run_config(
        {
            "experiment": {"device": task["device"], "output_dir": "."},
            "env": task["env"],
            "rollout": {
                "num_workers": 0,
                "envs_per_worker": envs,
                "steps_per_env": task["steps"],
                "device": task["device"],
            },
            "policy": {"hidden_dims": task["hidden"]},
        }
    )
    complete(config, envs, [])
    return config


def pipelined(stages: list[Stage], stepper: ThreadPoolExecutor) -> None:
    """Collect with all stages: `stepper`, one thread, simulates one while this thread acts."""
    pending: list[Future[StepResult]] = []
    for stage in stages:
        stage.begin()
        pending.append(stepper.submit(stage.step, stage.act(0)))
    for t in range(1, stages[0].steps + 1):
        for i, stage in enumerate(stages):
            stage.keep(t - 1, pending[i].result(ROLLOUT_TIMEOUT_S))
            if t < stage.steps:
                pending[i] = stepper.submit(stage.step, stage.act(t))


def in_turn(stages: list[Stage]) -> None:
    """Collect with all stages in this thread."""
    for stage in stages:
        stage.begin()
    for t in range(stages[0].steps):
        for stage in stages:
            stage.keep(t, stage.step(stage.act(t)))


class Workers:
    """Two processes with one stage each."""

    def __init__(self, task: dict[str, Any], envs: int) -> None:
        """Start them and wait until they are built."""
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for index in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, task, envs, index), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._wait(START_TIMEOUT_S)

    def rollout(self) -> None:
        """Have both collect."""
        for pipe in self._pipes:
            pipe.send_bytes(b"collect")
        self._wait(ROLLOUT_TIMEOUT_S)

    def _wait(self, timeout: float) -> None:
        for pipe in self._pipes:
            if not pipe.poll(timeout):
                raise TimeoutError(f"a worker of the benchmark is silent for {timeout:g} s")
            pipe.recv_bytes()

    def close(self) -> None:
        """End them."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()  # which ends its loop
            process.join(10.0)
            if process.is_alive():
                process.kill()


def _work(pipe: Connection, task: dict[str, Any], envs: int, index: int) -> None:
    torch.set_num_threads(1)
    stage = Stage(task, envs, index, alone=True)
    stage.rollout()
    pipe.send_bytes(b"built")
    with contextlib.suppress(EOFError):
        while pipe.recv_bytes():
            stage.rollout()
            pipe.send_bytes(b"done")


def measure(tasks: dict[str, dict[str, Any]], quick: bool) -> dict[str, Any]:
    """Measure every task."""
    torch.set_num_threads(1)  # as a worker
    rows = []
    for name, task in tasks.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows.append({"task": name, **task, **_measure_task(task, quick)})
    return {"rows": rows}


def _measure_task(task: dict[str, Any], quick: bool) -> dict[str, Any]:
    envs = task["envs"]
    with ExitStack() as stack:
        whole = Stage(task, envs, 0, alone=True)
        stages = [Stage(task, envs // 2, index, alone=False) for index in (1, 2)]
        for stage in (whole, *stages):
            stack.callback(stage.close)
        stepper = stack.enter_context(ThreadPoolExecutor(1))
        ways: dict[str, Callable[[], object]] = {
            "whole": whole.rollout,
            "in turn": lambda: in_turn(stages),
            "pipelined": lambda: pipelined(stages, stepper),
            "acting": whole.only_act,
            "halves acting": lambda: [stage.only_act() for stage in stages],
        }
        if task["device"] == "cpu":
            workers = Workers(task, envs)
            stack.callback(workers.close)
            ways["two workers"] = workers.rollout
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for way in ways.values():
            _seconds(way)  # caches, and the allocator's
        end = time.monotonic() + (0.0 if quick else SECONDS)
        while not taken["whole"] or (time.monotonic() < end and len(taken["whole"]) < ROUNDS):
            for name, way in ways.items():
                taken[name].append(_seconds(way))
    return {
        kind: {way: [round(1e3 * pair[i], 2) for pair in each] for way, each in taken.items()}
        for i, kind in enumerate(("ms", "cpu_ms"))
    }


def _seconds(way: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a call, and those of this process on its cores."""
    _synchronize()
    started, cpu = time.perf_counter(), time.process_time()
    way()
    _synchronize()
    return time.perf_counter() - started, time.process_time() - cpu


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def render(results: dict[str, Any]) -> str:
    """Return the table: how many times the samples a second of one instance."""
    header = ("task", "B", "hidden", "turns", "whole, ms", "acting's share", "halves in turn")
    header += ("best case", "pipelined", "middle half", "two workers")
    rows = []
    for row in results["rows"]:
        kind = "cpu_ms" if row["device"] == "cpu" else "ms"
        part = {way: statistics.median(each) for way, each in row[kind].items()}
        simulating = part["in turn"] - part["halves acting"]
        best = part["whole"] / max(simulating, part["halves acting"])
        pipelined = _ratios(row["ms"], "pipelined")
        quartiles = statistics.quantiles(pipelined * 2, n=4)
        workers = _ratios(row["ms"], "two workers") if "two workers" in row["ms"] else []
        cells = [row["task"], row["envs"], "-".join(map(str, row["hidden"])), len(pipelined)]
        cells += [f"{part['whole']:.1f}", f"{part['acting'] / part['whole']:.2f}"]
        cells += [f"{part['whole'] / part['in turn']:.2f}", f"{best:.2f}"]
        cells += [f"{quartiles[1]:.2f}", f"{quartiles[0]:.2f}-{quartiles[2]:.2f}"]
        cells += [f"{2 * statistics.median(workers):.2f}" if workers else "-"]  # twice the samples
        rows.append(cells)
    return markdown(header, rows)


def _ratios(ms: dict[str, list[float]], way: str) -> list[float]:
    return [a / b for a, b in zip(ms["whole"], ms[way], strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--device", choices=list(TASKS), default="cpu")
    chosen, rest = parser.parse_known_args()
    device = "cpu" if chosen.device == "cpu" else "cuda:0"
    tasks = {name: {**task, "device": device} for name, task in TASKS[chosen.device].items()}
    run_benchmark(__doc__ or "", tasks, measure, render, argv=rest)
