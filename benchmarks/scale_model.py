"""Plan past these machines: what R ranks and 1 to 1,024 workers reach, and which knob helps.

python -m benchmarks.scale_model [--task NAME] [--lag L] [--collective NAME] [--network GB/s]
python -m benchmarks.scale_model --record --json benchmarks/results/scale_inputs.json

Measured times of one process (`scale_record.py`) are drawn anew for each rollout and update, tails
and all, scaled (`scale_task.py`), and go through the run's own pacing (`scale_sim.py`). A share is
of what all workers would reach if nobody ever waited. An update of R ranks lasts as long as the
slowest rank's: ranks that are slow in turn, step by step, would make it longer.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import markdown, run_benchmark
from benchmarks.scale_sim import Plan, simulate
from benchmarks.scale_task import ASSUMED, Collective, Links, Shape, Task

INPUTS = Path(__file__).parent / "results" / "scale_inputs.json"
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
RANKS = (1, 2, 4, 8, 16, 32, 64)
LINEAR = 0.9  # the least share that still counts as linear
SIZES = (10_000, 400_000, 4_000_000, 40_000_000)  # parameters
WARM_UP, STEADY = 10, 3  # iterations left out: of what is drawn, of what is replayed


@dataclass(frozen=True)
class Prediction:
    """Of one shape: the mean iteration [s], samples a second, their share, and what bounds it."""

    iteration_s: float
    steps_per_s: float
    share: float
    bound: str


def predict(task: Task, shape: Shape, links: Links, iterations: int, seed: int) -> Prediction:
    """Simulate one shape; the same seed gives the same numbers."""
    plan = links.plan(task, shape)
    collect, update = task.draw(shape, iterations + WARM_UP, np.random.default_rng(seed))
    seconds = simulate(plan, collect, update).iteration_s(WARM_UP)
    samples = shape.workers * shape.envs * shape.steps
    share = float(collect.mean()) / seconds
    return Prediction(seconds, samples / seconds, share, _bound(plan, update, seconds, share))


def _bound(plan: Plan, update: np.ndarray, seconds: float, share: float) -> str:
    """Say what an iteration is as long as."""
    parts = {
        "update": float(update.max(1).mean()),
        "reduce": plan.allreduce_s,
        "link": plan.remote * plan.link_s,
    }
    if share >= LINEAR:
        return ""
    learner = parts["update"] + parts["reduce"]
    if max(learner, parts["link"]) < 0.9 * seconds and plan.lag:
        return "slowest"  # worker of each iteration
    return max(parts, key=lambda name: parts[name])


def grid(task: Task, lag: int, links: Links, iterations: int, seed: int) -> str:
    """Return the share of simulation alone, for workers and ranks."""
    rows = []
    for workers in WORKERS:
        row = [f"{workers:,}"]
        for ranks in RANKS:
            if ranks > workers:
                row.append("")
                continue
            found = predict(task, task.shape(ranks, workers, lag), links, iterations, seed)
            row.append(f"{found.share:.2f} {found.bound}".strip())
        rows.append(row)
    return markdown(("workers in all", *(f"R = {ranks}" for ranks in RANKS)), rows)


def knobs(task: Task, lag: int, links: Links, iterations: int, seed: int) -> str:
    """Return, where each R stops being linear, what each knob would change."""
    rows = []
    for ranks in (1, 8, 64):
        for workers in (w for w in WORKERS if w >= ranks):
            shape = task.shape(ranks, workers, lag)
            now = predict(task, shape, links, iterations, seed)
            if now.bound:
                break
        else:
            rows.append([ranks, f"> {WORKERS[-1]:,}", *[""] * 7])
            continue
        changes = {
            "T x 4": replace(shape, steps=4 * shape.steps),
            "B x 4": replace(shape, envs=4 * shape.envs),
            "L + 1": replace(shape, lag=lag + 1),
            "minibatches / 2": replace(shape, minibatches=max(1, shape.minibatches // 2)),
            "R x 2": replace(shape, ranks=2 * ranks, workers=max(workers, 2 * ranks)),
        }
        row = [ranks, f"{workers:,}", f"{now.share:.2f}", now.bound]
        for changed in changes.values():
            there = predict(task, changed, links, iterations, seed)
            row.append(f"{there.steps_per_s / now.steps_per_s:.2f}")
        rows.append(row)
    changed = ("T x 4", "B x 4", "L + 1", "minibatches / 2", "R x 2")
    return markdown(("R", "workers in all", "share", "bound by", *changed), rows)


def arithmetic(minibatch_steps: int, collectives: dict[str, Collective], network: float) -> str:
    """Return what an update's reductions, and one machine's weights, take [ms]."""
    header = ["parameters", f"weights to a machine, {network:g} GB/s"]
    header += [f"{name}, R = {ranks}" for name in collectives for ranks in (2, 8, 64)]
    rows = []
    for size in SIZES:
        row = [f"{size:,}", f"{4 * size / network / 1e6:.2f}"]
        for collective in collectives.values():
            for ranks in (2, 8, 64):
                row.append(f"{1e3 * minibatch_steps * collective.seconds(ranks, 4 * size):.1f}")
        rows.append(row)
    return markdown(header, rows)


def check(inputs: dict[str, Any], iterations: int, seed: int) -> str:
    """Return predicted over measured mean iterations of real runs.

    *Replayed* has the run's own rollouts and updates, in their order, and no more than the pacing
    is predicted; *from one process* knows nothing of the run but its shape, and the cores.
    """
    rows = []
    for row in inputs["checks"]:
        task = Task(inputs["tasks"][row["task"]])
        ranks, workers = row["ranks"], max(1, row["workers"])
        shape = task.shape(ranks, ranks * workers, row["lag"])
        links = Links(_gloo(inputs), inf, inf, 0.0, workers)
        measured = float(np.mean(row["iteration_s"]))
        K, own = len(row["collect_s"]), Plan(ranks, workers, row["lag"])
        collect = np.broadcast_to(np.reshape(row["collect_s"], (K, 1, 1)), (K, ranks, workers))
        update = np.broadcast_to(np.reshape(row["update_s"], (K, 1)), (K, ranks))
        replayed = simulate(own, collect, update).iteration_s(STEADY)
        plan = links.plan(task, shape, inputs["cores"]["worth"])
        drawn = task.draw(shape, iterations + WARM_UP, np.random.default_rng(seed))
        predicted = simulate(plan, *drawn).iteration_s(WARM_UP)
        cells = [row["task"], ranks, row["workers"], row["lag"], f"{1e3 * measured:.0f}"]
        rows.append([*cells, f"{replayed / measured:.2f}", f"{predicted / measured:.2f}"])
    header = ("task", "R", "W a rank", "L", "measured, ms", "replayed", "from one process")
    return markdown(header, rows)


def _gloo(inputs: dict[str, Any]) -> Collective:
    gloo, source = inputs["gloo"], "measured: two processes of one machine"
    return Collective(gloo["latency_s"], gloo["gb_s"], False, source)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.scale_model",
        usage=argparse.SUPPRESS,  # an error is one line
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument("--inputs", type=Path, default=INPUTS, help="from --record")
    parser.add_argument("--task", help="one of the inputs' (default: all)")
    parser.add_argument("--lag", type=_at_least(int, 0), default=1, help="max_policy_lag")
    parser.add_argument("--collective", choices=["gloo", *ASSUMED], help="(default: by task)")
    parser.add_argument(
        "--network", type=_at_least(float, 1e-3), default=1.1, help="to workers [GB/s]"
    )
    parser.add_argument("--local", type=_at_least(int, 0), help="workers beside a rank")
    parser.add_argument("--iterations", type=_at_least(int, 1), default=60, help="simulated")
    parser.add_argument("--seed", type=_at_least(int, 0), default=0)
    parser.add_argument("--check", action="store_true", help="only compare with the real runs")
    options = parser.parse_args(argv)
    try:
        inputs = json.loads(options.inputs.read_text())["results"]
    except (OSError, ValueError, KeyError) as e:
        parser.error(f"--inputs {options.inputs}: not a record of --record ({e})")
    if options.task not in (None, *inputs["tasks"]):
        parser.error(f"--task {options.task}: not in the inputs, which have {[*inputs['tasks']]}")
    if not options.check:
        _print_plans(inputs, options)
    print("\n## The model against real runs\n")
    print(
        f"{inputs['cores']['there']} cores, worth {inputs['cores']['worth']} when both are busy.\n"
    )
    print(check(inputs, options.iterations, options.seed))


def _print_plans(inputs: dict[str, Any], options: argparse.Namespace) -> None:
    collectives = {"gloo": _gloo(inputs), **ASSUMED}
    store = inputs["object_store"]
    for name, row in inputs["tasks"].items():
        if options.task not in (None, name):
            continue
        task = Task(row)
        reduced_by = options.collective or ("infiniband" if task.parameters > 1e5 else "ethernet")
        collective = collectives[reduced_by]
        local = task.local if options.local is None else options.local
        copy = store["copy_out_gb_s"]
        links = Links(collective, options.network, copy, store["latency_s"], local)
        sizes = f"B = {row['envs']:,}, T = {row['steps']}, L = {options.lag}"
        print(f"\n## {name}: {sizes}, {local} workers beside a rank, {collective.source}\n")
        print(f"Share of simulation alone, and what bounds it where it is below {LINEAR:g}:\n")
        arguments = (task, options.lag, links, options.iterations, options.seed)
        print(
            grid(*arguments)
            + "\n\nWhere it stops being linear, how many times the steps/s after a change:\n"
        )
        print(knobs(*arguments), flush=True)
    print("\n## All-reduce of 20 minibatch steps, and weights [ms]\n")
    for name, collective in collectives.items():
        latency, rate = 1e6 * collective.latency_s, collective.gb_s
        print(f"- {name}: {latency:.0f} us a message, {rate:.1f} GB/s ({collective.source})")
    print("\n" + arithmetic(20, collectives, options.network))


def _at_least(kind: type, least: float) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < inf:
            raise argparse.ArgumentTypeError(f"{text}: must be {least:g} or more")
        return value

    number.__name__ = kind.__name__
    return number


if __name__ == "__main__":
    if "--record" in sys.argv:
        from benchmarks import scale_record

        rest = [word for word in sys.argv[1:] if word != "--record"]
        run_benchmark(
            __doc__ or "", scale_record.TASKS, scale_record.measure, scale_record.render, argv=rest
        )
    else:
        main()
