"""Isaac Lab tasks of every kind on stand-ins, for checks that share a process of a generation."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isaac_stage import physics, read_report, run_python, stage

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv

B = 3


class Checks(dict[str, Callable[[], None]]):
    """A test file's checks by name; that file, run as a script, makes them."""

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Have `function` run in each generation's process."""
        self[function.__name__] = function
        return function


def findings_of(file: str, generation: str, where: Path) -> dict[str, str]:
    """Run a file's checks in one process of `generation`; returns what each found."""
    env = {**stage(generation, where), "PHYSICS": physics(generation) or ""}
    return read_report(run_python([file], env, where))


def env_config(task: str, **changed: Any) -> EnvConfig:
    config = EnvConfig(kind="isaaclab", task=task, physics=os.environ["PHYSICS"] or None)
    for name, value in changed.items():
        setattr(config, name, value)
    return config


def make(task: str, **cfg: Any) -> IsaacLabVecEnv:
    cfg.setdefault("episode_length_s", 0.05)  # three steps
    return IsaacLabVecEnv(env_config(task, cfg=cfg), B, "cpu", seed=1)
