"""What a step costs against W, B, T, the network's size and the observation's: one plot each.

python -m benchmarks.scaling --json benchmarks/results/scaling.json

The free environment of `benchmarks/free_env.py` through the pipeline of `benchmarks/pipeline.py`,
without learning: what is measured is acting, writing and handing over. One number is changed at a
time; the others stay those of `BASE`. Plots go beside the JSON, `scaling_<what>.png`.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks import free_env
from benchmarks.common import markdown, run_benchmark
from benchmarks.pipeline import Pipeline, make_config

BASE = {"workers": 1, "envs": 1024, "steps": 24, "hidden": 64, "obs": 48}
TASKS: dict[str, list[int]] = {
    "workers": [1, 2, 4, 8],
    "envs": [16, 64, 256, 1024, 4096],
    "steps": [4, 8, 16, 32, 64, 128],
    "hidden": [16, 64, 256, 512],
    "obs": [4, 16, 64, 256, 1024, 4096],
}
LABELS = {
    "workers": "W: workers",
    "envs": "B: envs per worker",
    "steps": "T: steps per rollout",
    "hidden": "units of each of two hidden layers",
    "obs": "floats observed",
}
ROUNDS = 3
SECONDS = 2.0


def measure(tasks: dict[str, list[int]], quick: bool) -> dict[str, Any]:
    """Measure every value of every number, all of them once before any for the second time."""
    rounds, seconds = (1, 0.3) if quick else (ROUNDS, SECONDS)
    found: dict[tuple[str, int], list[float]] = {}
    with free_env.registered():
        for _ in range(rounds):
            for name, values in tasks.items():
                for value in values[:2] if quick else values:
                    rate = _steps_per_s({**BASE, name: value}, seconds)
                    found.setdefault((name, value), []).append(rate)
                    print(name, value, f"{rate:,.0f} steps/s", flush=True)
    rows = [
        {"changed": name, "value": value, "steps_per_s": statistics.median(rates), "runs": rates}
        for (name, value), rates in found.items()
    ]
    return {"base": BASE, "rows": rows}


def _steps_per_s(shape: dict[str, int], seconds: float) -> float:
    obs = {"state": ["float32", shape["obs"]]}
    hidden = [shape["hidden"]] * 2
    task = {"obs": obs, "fill": "frames", "envs": shape["envs"], "hidden": hidden}
    with Pipeline(make_config(task, shape["workers"], shape["steps"])) as pipeline:
        pipeline.begin()
        return pipeline.drain("views", seconds)["steps_per_s"]


def render(results: dict[str, Any]) -> str:
    """Return one table."""
    rows = []
    for row in results["rows"]:
        cost = 1e9 / row["steps_per_s"]
        rate = f"{row['steps_per_s']:,.0f}"
        rows.append((LABELS[row["changed"]], f"{row['value']:,}", rate, f"{cost:,.0f}"))
    return markdown(("changed", "to", "steps/s", "ns a step"), rows)


def plot(results: dict[str, Any], directory: Path) -> None:
    """Draw one PNG a number, each with the spread of its runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name in dict.fromkeys(row["changed"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["changed"] == name]
        values = [row["value"] for row in rows]
        figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
        axes.plot(values, [1e6 / row["steps_per_s"] for row in rows], marker="o")
        low, high = ([1e6 / pick(row["runs"]) for row in rows] for pick in (max, min))
        axes.fill_between(values, low, high, alpha=0.2)
        axes.set(xscale="log", xlabel=LABELS[name], ylabel="us a step of one env")
        axes.set_ylim(bottom=0.0)
        axes.set_xticks(values, [f"{value:,}" for value in values])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        figure.savefig(directory / f"scaling_{name}.png", dpi=120)
        pyplot.close(figure)


if __name__ == "__main__":
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--json", type=Path, required=True)
    directory = options.parse_known_args()[0].json.parent

    def shown(results: dict[str, Any]) -> str:
        """Plot, then return the table."""
        plot(results, directory)
        return render(results)

    run_benchmark(__doc__ or "", TASKS, measure, shown)
