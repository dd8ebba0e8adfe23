"""A run's results for a reader: `report.md` next to `summary.json`, with the learning curve.

Every run writes it at its end (`logging.report`), in the learner's process; `appo report` in one of
its own. Everything in it is read from the run's directory.
"""

import contextlib
import json
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from isaac_hydra_ext.errors import ConfigError, MissingDependencyError, shown
from isaac_hydra_ext.evaluation.episodes import line_of
from isaac_hydra_ext.evaluation.video import DIRECTORY, preview_of
from isaac_hydra_ext.reports.curves import RETURN, combine, read_run
from isaac_hydra_ext.reports.events import FILES as EVENT_FILES
from isaac_hydra_ext.reports.parts import parts_of
from isaac_hydra_ext.reports.plot import STEM, draw
from isaac_hydra_ext.terminal.console import as_number, as_share

FILE = "report.md"
# Of TensorBoard's events: some 15 s of reading, and as much memory four times over.
PATIENCE_BYTES = 100 * 2**20


def write_report(run_dir: Path, patient: bool = True) -> Path:
    """Write `report.md` and, where matplotlib is installed, `learning_curve.{png,svg}`.

    Args:
        run_dir: Of a run that has written its summary.
        patient: Draw the curve however long that takes; a run at its end does not.

    Raises:
        ConfigError: The summary cannot be read, or the report not be written.
    """
    path, typed = run_dir / "summary.json", run_dir / ".hydra" / "overrides.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; a run writes it with its first checkpoint")
    try:
        overrides = OmegaConf.to_container(OmegaConf.load(typed))
    except (OSError, YAMLError, OmegaConfBaseException) as e:
        raise ConfigError(f"{typed}: cannot be read ({type(e).__name__}: {shown(e)})") from e
    try:
        summary = json.loads(path.read_text())
        curve = _curve(run_dir, patient)
        curve += _video(summary.get("evaluation"))
        text = _text(run_dir, summary, curve, overrides if isinstance(overrides, list) else [])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"{path}: cannot be read ({type(e).__name__}: {shown(e)})") from e
    report = run_dir / FILE
    temporary = report.with_name(f".{FILE}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(report)
    except OSError as e:
        raise ConfigError(f"{report}: cannot be written ({e})") from e
    finally:
        with contextlib.suppress(OSError):  # the error above is the one to report
            temporary.unlink()
    return report


def _curve(run_dir: Path, patient: bool) -> str:
    """Draw the curve; returns the line that shows it, or why there is none."""
    nbytes = sum(
        path.stat().st_size for part in parts_of(run_dir) for path in part.run_dir.glob(EVENT_FILES)
    )
    if nbytes > PATIENCE_BYTES and not patient:
        return f"No curve: of a run as long as this `appo report {run_dir}` draws it."
    try:
        draw(combine([read_run(run_dir)]), "samples", RETURN, run_dir / STEM)
    except (ConfigError, MissingDependencyError) as e:
        return f"No curve: {e}."
    return f"![{RETURN} over env steps]({STEM}.svg)"


def _video(evaluation: dict[str, Any] | None) -> str:
    """Return the lines that show the last evaluation's video, where it has one."""
    if not evaluation or not evaluation.get("video"):
        return ""
    path = Path(DIRECTORY) / evaluation["video"]
    return f"\n\n[![iteration {evaluation['iteration']}]({preview_of(path)})]({path})"


def _evaluation(evaluation: dict[str, Any] | None) -> dict[str, str]:
    """Return the rows about the last evaluation; none where there was none."""
    if not evaluation:
        return {}
    return {
        f"evaluation of iteration {evaluation['iteration']:,}": line_of(evaluation),
        "best evaluation": as_number(evaluation["best_mean_return"]),
        "evaluations skipped": f"{evaluation['skipped']:,}",
    }


def _instead_of_a_return(summary: dict[str, Any]) -> dict[str, str]:
    """Return the row about the reward where no episode tells more; none in summaries of 0.1."""
    if summary["mean_return"] is not None or summary.get("reward_per_step") is None:
        return {}
    return {"reward per step": f"{summary['reward_per_step']:.4g} ({summary['no_mean_return']})"}


def _left_out(summary: dict[str, Any]) -> str:
    left = summary.get("fps_left_out") or {"iterations": 0}
    if not left["iterations"]:
        return ""
    return f", without {left['iterations']:,} iterations ({left['wall_s']:,.1f} s) at either end"


def _text(run_dir: Path, summary: dict[str, Any], curve: str, typed: list[Any]) -> str:
    wall_s = summary["wall_s"]
    rows = {
        "mean return (last 100 episodes)": as_number(summary["mean_return"]),
        **_instead_of_a_return(summary),
        "best mean return": as_number(summary["best_return"]),
        **_evaluation(summary.get("evaluation")),
        "mean episode length": f"{as_number(summary['mean_episode_length'])} steps",
        "speed": f"{summary['fps']:,.0f} env steps/s{_left_out(summary)}",
        "learner waited": f"{as_share(summary['learner_idle_s'], wall_s)} of the time",
        "workers waited": f"{as_share(summary['workers_wait_s'], wall_s)} of the time",
        "mean policy lag": f"{summary['policy_lag_mean']:.2f} versions",
        "samples learned from": f"{summary['samples_consumed']:,}",
        "samples abandoned": f"{summary['samples_abandoned']:,}",
        "workers replaced": f"{summary['worker_restarts']:,}",
        "learner's device": summary["device"],
    }
    command = shlex.join(["appo", "train", *map(str, typed)])
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    lines = [
        f"# {run_dir.parent.name}, {run_dir.name}",
        "",
        f"{summary['status'].capitalize()} after {summary['iterations']:,} iterations: "
        f"{summary['env_steps']:,} env steps in {timedelta(seconds=round(wall_s))}.",
        "",
        curve,
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "```bash",
        command,
        "```",
        "",
        f"Its whole configuration is `params/agent.yaml`. {versions}.",
        "",
    ]
    return "\n".join(lines)
