"""`appo train`, and `python -m isaac_hydra_ext.appo_runner`. Runs in the learner's main thread."""

import sys

import hydra
from omegaconf import DictConfig

from isaac_hydra_ext.cli.explain import asked_for, explain_task, strip_flags
from isaac_hydra_ext.cli.hydra_task import run_from_hydra
from isaac_hydra_ext.cli.main import end_process, run_hydra_app


@hydra.main(version_base="1.3", config_path="pkg://isaac_hydra_ext.conf", config_name="train_appo")
def hydra_task(cfg: DictConfig) -> float | None:
    """Train with what Hydra composed."""
    return run_from_hydra(cfg)


def main() -> None:
    """Run the command line; exits with the error's code."""
    task = hydra_task
    if asked_for(sys.argv):
        sys.argv, task = strip_flags(sys.argv), explain_task
    end_process(run_hydra_app(task))


if __name__ == "__main__":
    main()
