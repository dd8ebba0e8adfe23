"""What every benchmark shares: one training as a user would start it, records, tables.

A training runs in a process of its own, through the same command line that a user types. Its curve
is read back from the TensorBoard events that it wrote.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.config.placement import available_cores
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("isaac-hydra-ext", "torch", "numpy", "gymnasium", "hydra-core", "mjlab", "rsl-rl-lib")
TRAINING_TIMEOUT_S = 1800.0
EVALUATION_SEED = 1000  # training seeds are small numbers


@dataclass(frozen=True)
class Point:
    """One learning iteration of a training curve.

    Attributes:
        env_steps: Samples learned from so far.
        seconds: Training time so far, without start-up [s].
        mean_return: Over the last 100 finished episodes; None before the first.
    """

    env_steps: int
    seconds: float
    mean_return: float | None


@dataclass(frozen=True)
class Training:
    """A finished run: its directory, whole configuration, `summary.json`, and curve.

    Attributes:
        first_s: From the command to the end of the first iteration [s].
    """

    run_dir: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    curve: list[Point]
    first_s: float

    def first_at_least(self, threshold: float) -> Point | None:
        """Return the first point whose mean return reaches `threshold`, or None."""
        reached = (p for p in self.curve if p.mean_return is not None)
        return next((p for p in reached if (p.mean_return or 0.0) >= threshold), None)

    def evaluate(self, episodes: int = 32) -> float:
        """Return the mean return of the newest checkpoint, played deterministically."""
        checkpoint = find_checkpoint(str(self.run_dir), self.run_dir.parent).checkpoint
        return float(evaluate(checkpoint, episodes, EVALUATION_SEED)["mean_return"])


def train(
    overrides: Sequence[str],
    output_dir: str,
    environment: Mapping[str, str] | None = None,
    run: Callable[..., str] | None = None,
) -> Training:
    """Train to the end in a new process.

    Args:
        overrides: Hydra overrides, as typed after `python -m isaac_hydra_ext.appo_runner`.
        output_dir: Where the run's directory goes.
        environment: Variables besides this process's.
        run: Instead of `run_module`.

    Raises:
        RuntimeError: The run failed; the message holds the end of its output.
    """
    fixed = [f"experiment.output_dir={output_dir}", "logging.console=plain"]
    began = time.time()
    words = [*overrides, *fixed]
    output = (run or run_module)("isaac_hydra_ext.appo_runner", words, environment)
    found = re.search(r"^run: (.+)$", output, re.MULTILINE)
    assert found, output
    run_dir = Path(found[1])
    summary = json.loads((run_dir / "summary.json").read_text())
    config = OmegaConf.to_container(OmegaConf.load(run_dir / "params" / "agent.yaml"))
    assert isinstance(config, dict)
    plain = {str(key): value for key, value in config.items()}
    curve, first_ended = read_curve(run_dir, summary)
    return Training(run_dir, plain, summary, curve, first_ended - began)


def train_rsl_rl(
    task: str,
    num_envs: int,
    iterations: int,
    seed: int,
    log_dir: str,
    device: str = "cpu",
    episodes: int = 0,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train with rsl_rl in a new process; returns what that prints, and `training_s`.

    Args:
        task: Of mjlab.
        num_envs: In its one process.
        iterations: Of the task's own number of steps.
        seed: Of the task and the trainer.
        log_dir: Where its events go, and no other training's.
        device: Of both.
        episodes: Played at the end.
        environment: Variables besides this process's.

    Raises:
        RuntimeError: It failed; the message holds the end of its output.
    """
    arguments = {
        "--task": task,
        "--num-envs": num_envs,
        "--iterations": iterations,
        "--seed": seed,
        "--log-dir": log_dir,
        "--device": device,
        "--episodes": episodes,
    }
    words = [str(word) for item in arguments.items() for word in item]
    output = run_module("benchmarks.rsl_rl_trainer", words, environment)
    seconds = sum(rsl_rl_iteration_times(Path(log_dir)))
    return {**json.loads(output.splitlines()[-1]), "training_s": seconds}


def run_module(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    root: Path = REPOSITORY,
    python: str = sys.executable,
) -> str:
    """Run `python -m module` in a new process and return its stdout.

    Args:
        module: To run.
        arguments: Of its command line.
        environment: Variables besides this process's.
        root: Of the repository whose code it is.
        python: The interpreter.

    Raises:
        RuntimeError: It failed; the message holds the end of its output.
    """
    command = [python, "-m", module, *arguments]
    done = subprocess.run(
        command,
        cwd=root,
        env={**module_environment(root), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=TRAINING_TIMEOUT_S,
    )
    if done.returncode != 0:
        tail = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{tail}")
    return done.stdout


def module_environment(root: Path) -> dict[str, str]:
    """Return this process's variables, with a repository's code before any that is installed."""
    path = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def read_curve(run_dir: Path, summary: dict[str, Any]) -> tuple[list[Point], float]:
    """Read a run's curve from its events, and when the first iteration ended [s since 1970].

    Their step is the learning iteration.
    """
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    # The tag is not there before the first episode has finished.
    finished = "Train/mean_reward" in events.Tags()["scalars"]
    returns = {e.step: e.value for e in events.Scalars("Train/mean_reward")} if finished else {}
    n_buffer = summary["env_steps"] // summary["iterations"]
    seconds, curve, iterations = 0.0, [], events.Scalars("Perf/iteration_time")
    for event in iterations:
        seconds += event.value
        curve.append(Point(event.step * n_buffer, seconds, returns.get(event.step)))
    return curve, iterations[0].wall_time


def rsl_rl_iteration_times(directory: Path) -> list[float]:
    """Read what rsl_rl's iterations took [s] from its events: logging and saving are not in it."""
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    tags = ("Perf/collection_time", "Perf/learning_time")
    both = zip(*(events.Scalars(tag) for tag in tags), strict=True)
    return [collection.value + learning.value for collection, learning in both]


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def run_benchmark(
    doc: str,
    tasks: Mapping[str, T],
    measure: Callable[..., dict[str, Any]],
    render: Callable[[dict[str, Any]], str],
    takes_overrides: bool = False,
    takes_baseline: bool = False,
    argv: Sequence[str] | None = None,
) -> None:
    """Run one benchmark's command line.

    Args:
        doc: The module's docstring; its first line is the help text.
        tasks: What can be measured, by name; `--only NAME` chooses one.
        measure: Takes the chosen tasks, whether to be quick, and the overrides where it takes
            them; returns JSON-ready results.
        render: Turns results into Markdown.
        takes_overrides: Hydra overrides may follow, for every run of the benchmark.
        takes_baseline: `--baseline REV` is there, and `measure` is given REV or None.
        argv: What a benchmark with options of its own has left of the command line.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="see that it works; measures nothing")
    parser.add_argument("--only", choices=list(tasks), help="measure this one (default: all)")
    if takes_overrides:
        parser.add_argument("overrides", nargs="*", help="Hydra overrides of every run")
    if takes_baseline:
        parser.add_argument("--baseline", help="measure this commit too, in turns with this build")
    arguments = parser.parse_args(argv)
    more = [arguments.overrides] if takes_overrides else []
    more += [arguments.baseline] if takes_baseline else []
    chosen = {k: v for k, v in tasks.items() if arguments.only in (None, k)}
    started, load_before = time.monotonic(), os.getloadavg()[1]
    results = measure(chosen, arguments.quick, *more)
    main = sys.modules["__main__"].__spec__
    record = {
        "command": " ".join(["python -m", main.name if main else "?", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "quick": arguments.quick,
        "took_s": round(time.monotonic() - started, 1),
        "machine": describe_machine() | {"load_5_min_before": round(load_before, 2)},
        "git": _git_version(),
        "versions": {name: _version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "results": results,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    print(render(results), flush=True)


def describe_machine() -> dict[str, Any]:
    """Return what wall times depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "cpu": found[1] if found else platform.processor(),
        "cores": available_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _git_version() -> str:
    """Return the commit, with `-dirty` where the package or the benchmarks differ from it."""
    git = ["git", "-C", str(REPOSITORY)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    paths = ["isaac_hydra_ext", "benchmarks/*.py"]
    status = [*git, "status", "--porcelain", "--", *paths]
    changed = subprocess.run(status, capture_output=True, text=True)
    return commit.stdout.strip() + ("-dirty" if changed.returncode or changed.stdout else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
