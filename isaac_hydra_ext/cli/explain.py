"""`--cfg job --resolve`: the configuration a run would have, and where each value comes from.

Runs in the learner's main thread; the task is described as in a run. Nothing is built.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isaac_hydra_ext.cli.main import run_reporting_errors
from isaac_hydra_ext.config.nested import value_at
from isaac_hydra_ext.config.reading import Settings, complete, read
from isaac_hydra_ext.config.schema import RunConfig, walk
from isaac_hydra_ext.config.typed import is_typed
from isaac_hydra_ext.envs.loading import configure
from isaac_hydra_ext.system.stop_signals import StopSignals

if TYPE_CHECKING:  # it imports torch, which a training does later
    from isaac_hydra_ext.envs.contract import TaskDescription

FLAGS = ("--cfg", "-c")
ONE_WORD = "--cfg=job"
UNSET = object()


def asked_for(arguments: Sequence[str]) -> bool:
    """Return whether the command line asks for the whole resolved configuration.

    A part of it (`--package`) is Hydra's to show, as it was composed.
    """
    named = [b for a, b in zip(arguments, arguments[1:], strict=False) if a in FLAGS]
    named += ["job" for a in arguments if a == ONE_WORD]
    part = any(a.startswith(("-p", "--package")) for a in arguments)
    return named == ["job"] and "--resolve" in arguments and not part


def strip_flags(arguments: Sequence[str]) -> list[str]:
    """Remove what `asked_for` has seen: Hydra would answer it before there is a task."""
    return [a for a in arguments if a not in (*FLAGS, "job", ONE_WORD, "--resolve")]


def origin(key: str, settings: Settings, task: "TaskDescription", value: Any) -> str:
    """Say which layer a value comes from, the highest that has it.

    Args:
        key: Of the knob, e.g. `ppo.lr`.
        settings: The user's.
        task: What it recommends.
        value: What the run would have.
    """
    if is_typed(key, settings.typed):
        return "typed"
    for layer, its_settings in (
        ("config file", settings.user),
        ("env.trainer_defaults", settings.recommended),
        ("appo_cfg_entry_point", task.authors),
        ("the task's agent cfg", task.settings),
    ):
        set_there = value_at(its_settings, key, UNSET)
        # A batch_size above it has made a layer's num_mini_batches null.
        if set_there is not UNSET and (set_there is None or value is not None):
            return layer
    return "default" if value == attrgetter(key)(RunConfig()) else "completed"


def explain(cfg: DictConfig, typed: Sequence[str]) -> str:
    """Return the whole configuration as YAML, each value with its origin.

    Raises:
        IsaacHydraExtError: As the run would.
    """
    from isaac_hydra_ext.workers.sources import make_source

    settings = read(cfg, typed)
    config = configure(settings)
    num_workers = config.num_workers
    if num_workers:
        config.rollout.num_workers = 1  # one is enough to ask
    with ExitStack() as stack:
        source = make_source(config, stack.enter_context(StopSignals()))
        stack.callback(source.close)
        task = source.describe()
    config = configure(settings, task.settings, num_workers)
    complete(config, task.default_num_envs, typed)
    lines: list[str] = []
    shown: list[str] = []  # the sections that the last line is in
    for key, value, _ in walk(config):
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if sections[: depth + 1] != shown[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        shown = sections
        text = OmegaConf.to_yaml({name: value}, sort_keys=False).rstrip("\n")
        if "\n" in text or len(text) > 60:  # on one line, to have room for the origin
            text = f"{name}: {json.dumps(value)}"
        indent = "  " * len(sections)
        lines.append(f"{indent + text:<48}  # {origin(key, settings, task, value)}")
    return "\n".join(lines)


@hydra.main(version_base="1.3", config_path="pkg://isaac_hydra_ext.conf", config_name="train_appo")
def explain_task(cfg: DictConfig) -> None:
    """Print the explanation of what Hydra composed."""
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    if code := run_reporting_errors(lambda: print(explain(cfg, typed), flush=True)):
        sys.exit(code)
