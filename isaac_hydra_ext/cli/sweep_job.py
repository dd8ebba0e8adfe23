"""The other side of `cli/sweep.py`: the process of one job. Trains in its main thread."""

import contextlib
import json
import os
import signal
import sys
from typing import Any

from isaac_hydra_ext.system.parent_death import die_with_parent


def main(launcher: int, answer: int) -> None:
    """Read a job from stdin, train, and write what came out.

    Args:
        launcher: The process to end with: its death is a SIGTERM here, upon which the run saves.
        answer: Descriptor to write the result to, as JSON.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the run handles it there is nothing to say
    die_with_parent(signal.SIGTERM)
    if os.getppid() != launcher:  # it died before the line above
        sys.exit(128 + signal.SIGTERM)
    job = json.loads(sys.stdin.buffer.read())
    os.set_inheritable(answer, False)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)

    from isaac_hydra_ext.cli.main import end_process, run_reporting_errors

    result: dict[str, Any] = {}
    code = run_reporting_errors(lambda: _train(job, result))
    with contextlib.suppress(BrokenPipeError), os.fdopen(answer, "w") as out:
        json.dump(result, out)
    end_process(code)


def _train(job: dict[str, Any], result: dict[str, Any]) -> None:
    """Train; what there is to tell of the run is put into `result`, also where it fails."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from isaac_hydra_ext.appo_runner import open_run

    node, cfg = OmegaConf.create(job["hydra"]), OmegaConf.create(job["cfg"])
    assert isinstance(node, DictConfig) and isinstance(cfg, DictConfig)
    # Its setter wants a node of Hydra's own class, which YAML does not make.
    HydraConfig.instance().cfg = node  # type: ignore[assignment]
    run, until = None, job.get("until")  # of a trial of Ray Tune's
    try:
        with open_run(cfg, job["typed"]) as run:
            run.iterate(None if until is None else lambda metrics: metrics["iteration"] < until)
    finally:
        if run is not None:
            result["run_dir"] = str(run.run_dir)
            result["objective"] = run.config.experiment.objective
            result["summary"] = run.record.summary
