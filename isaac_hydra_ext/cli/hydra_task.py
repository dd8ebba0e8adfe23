"""One training inside a `hydra.main` function, as every command that trains runs it.

Runs in the learner's main thread; of a multirun, in the process that Hydra's launcher calls.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.cli.sweep import is_sweep, run_job
from isaac_hydra_ext.system.garbage import garbage_uncollected
from isaac_hydra_ext.workers.ahead import workers_ahead

if TYPE_CHECKING:
    from isaac_hydra_ext.appo_runner import Run


def run_from_hydra(
    cfg: DictConfig, announce: Callable[[Path], None] | None = None, lasting: bool = False
) -> float | None:
    """Train inside a `hydra.main` function; ends the process where the run has failed.

    Args:
        cfg: What Hydra composed.
        announce: See `open_run`.
        lasting: See `open_run`.

    Returns:
        What `experiment.objective` names: a Hydra sweeper optimises it.
    """
    # Unresolved: an override that names an environment variable must not become its value.
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    if is_sweep():
        return run_job(cfg, typed)
    ended: list[Run] = []

    def task() -> None:
        with workers_ahead(cfg, typed):  # they import torch meanwhile, too
            with garbage_uncollected():
                from isaac_hydra_ext.appo_runner import open_run
            with open_run(cfg, typed, "", announce, lasting) as run:
                run.iterate()
        ended.append(run)

    code = run_reporting_errors(task)
    if code:
        sys.exit(code)
    (run,) = ended
    _say_what_comes_next(run)
    # Not of `cfg`: a group file of the user's own holds what differs, not every knob.
    return run.record.summary[run.config.experiment.objective]


def _say_what_comes_next(run: "Run") -> None:
    run_dir = shlex.quote(str(run.run_dir))
    iterations = run.record.summary["iterations"]
    newest = shlex.quote(f"{run.run_dir}/checkpoints/model_{iterations}.safetensors")
    run.console.say(
        f"run: {run_dir}\ntensorboard --logdir {run_dir}\n"
        f"checkpoint: {newest}\nevaluate: appo eval {run_dir}"
    )
