"""Learning curves as pictures: PNG and SVG. Needs matplotlib.

Runs in the process of `appo plot` or `appo report`, and in the learner's at the end of a run.
"""

from collections.abc import Sequence
from pathlib import Path

from isaac_hydra_ext.config.checks import RESUME_WORDS, as_path
from isaac_hydra_ext.config.schema import ExperimentConfig
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError, shown
from isaac_hydra_ext.reports.curves import (
    AXES,
    RETURN,
    Curve,
    RunCurve,
    read_run,
    without_parts,
)

STEM = "learning_curve"
LABELS = {RETURN: "mean return of the last 100 episodes"}
FORMATS = ("png", "svg")


def draw(curves: Sequence[Curve], axis: str, tag: str, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg: each curve's mean, and a band from lowest to highest run.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ConfigError: They cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    except ImportError as e:
        raise MissingDependencyError(
            f"appo plot: {e}; install it with: pip install 'isaac-hydra-ext[plot]'"
        ) from e
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        seeds = f" ({curve.runs} runs)" if curve.runs > 1 else ""
        (line,) = axes.plot(curve.x, curve.mean, linewidth=1.6, label=f"{curve.label}{seeds}")
        if curve.runs > 1:
            axes.fill_between(
                curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0
            )
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 1M
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel(LABELS.get(tag, tag))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": STEM}):
            for path in paths:
                date = {"Date": None} if path.suffix == ".svg" else {}
                figure.savefig(path, dpi=150, metadata=date)  # the same curves, the same bytes
    except OSError as e:
        raise ConfigError(f"{shown(stem)}: cannot be written ({e})") from e
    return paths


def read_runs(runs: Sequence[Path], tag: str, axis: str) -> tuple[list[RunCurve], list[str]]:
    """Read every run that has points, its parts as one; returns a line for each that has none.

    Raises:
        ConfigError: None of them has.
    """
    curves, notes = [], []
    for run in without_parts(runs):
        try:
            curves.append(read_run(run, tag, axis))
        except ConfigError as e:
            notes.append(str(e))
    if not curves:
        raise ConfigError(notes[0] + (f" (nor in {len(notes) - 1} others)" if notes[1:] else ""))
    return curves, notes


def place_of(word: str) -> Path:
    """Return what a command line's RUN names, as `find_checkpoint` has it: a run, or several.

    `latest` is the newest run below logs/appo, `best` the one whose checkpoint has the highest mean
    return, and a checkpoint stands for its run.

    Raises:
        ConfigError: There is none yet; not a path.
    """
    if word not in RESUME_WORDS:
        path = as_path("RUN", word)
        return path.parents[1] if path.is_file() and path.parent.name == "checkpoints" else path
    from isaac_hydra_ext.checkpoints.find import list_runs, of_one_task, rank  # with torch: slow

    root = Path(ExperimentConfig().output_dir)
    runs = list_runs(root, "*/*")
    if word == "best":
        ranked = of_one_task(rank(runs, []), f"below {root}", word)
        runs = [best.path.parents[1] for best in ranked]
    if not runs:
        raise ConfigError(f"{word}: there is no such run below {root}")
    return runs[0]
