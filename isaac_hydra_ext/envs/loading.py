"""The checked configuration of a run, its `env` section included. Runs in the learner's process."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from isaac_hydra_ext.config.reading import load_config
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.registry import auto_is_gpu, check_env


def load_run_config(
    cfg: DictConfig | Mapping[str, Any],
    typed: Sequence[str] = (),
    task_settings: Mapping[str, Any] | None = None,
    num_workers: int | None = None,
) -> RunConfig:
    """Return what `load_config` does, placed and checked as its `env.kind` needs it.

    Arguments and errors are those of `load_config`.
    """
    config = load_config(cfg, typed, task_settings, num_workers, auto_is_gpu)
    check_env(config)
    return config
