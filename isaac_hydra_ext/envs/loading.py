"""The checked configuration of a run on this machine. Runs in the learner's process."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from isaac_hydra_ext.config.machine import check_devices, check_machine
from isaac_hydra_ext.config.placed import follow_placement
from isaac_hydra_ext.config.placement import place
from isaac_hydra_ext.config.ranks import take_seat
from isaac_hydra_ext.config.reading import Settings, read
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.registry import auto_is_gpu, check_env


def configure(
    settings: Settings,
    task_settings: Mapping[str, Any] | None = None,
    num_workers: int | None = None,
) -> RunConfig:
    """Return the configuration of a run, placed on this machine and checked against it.

    Args:
        settings: What the user has set.
        task_settings: Nested settings that the task itself recommends.
        num_workers: What W is already: its processes have been started. None: it is chosen.

    Raises:
        ConfigError: In one line: the key, what is wrong, what would be right.
    """
    config = settings.config(task_settings)
    follow_placement(config, settings.user, os.environ)
    check_devices(config)
    check_env(config)
    take_seat(config, auto_is_gpu(config.env), os.environ)
    place(config, auto_is_gpu(config.env), num_workers)
    check_machine(config)
    return config


def load_run_config(
    cfg: DictConfig | Mapping[str, Any],
    typed: Sequence[str] = (),
    task_settings: Mapping[str, Any] | None = None,
    num_workers: int | None = None,
) -> RunConfig:
    """Read a configuration and `configure` it; arguments and errors are those of the two."""
    return configure(read(cfg, typed), task_settings, num_workers)
