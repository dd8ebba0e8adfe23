"""From what Hydra composed to a `RunConfig`, in two steps, each with all its errors.

Runs in the learner's process, before any worker exists. `load_config` needs no task; what depends
on one (how many envs, its recommended settings) is filled in by `complete`, once the task has
described itself.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from isaac_hydra_ext.config.checks import (
    SAFE_NAME,
    check_bounds,
    check_devices,
    check_names,
    check_rest,
    is_typed,
    refuse_foreign,
    refuse_unknown,
    resolve,
)
from isaac_hydra_ext.config.layers import merge_layers
from isaac_hydra_ext.config.placement import place
from isaac_hydra_ext.config.schema import EnvConfig, RunConfig
from isaac_hydra_ext.errors import ConfigError


def load_config(
    cfg: DictConfig | Mapping[str, Any],
    typed: Sequence[str] = (),
    task_settings: Mapping[str, Any] | None = None,
    num_workers: int | None = None,
    auto_is_gpu: Callable[[EnvConfig], bool] = lambda _: False,
) -> RunConfig:
    """Turn a composed configuration into a checked `RunConfig`.

    Precedence, highest first: what differs from the defaults or was typed; `env.appo` (a config
    file's recommendation for its task); `task_settings` (the task's own); the defaults.

    Args:
        cfg: What Hydra composed. A top-level `hydra` node is ignored.
        typed: The user's override tokens (`ppo.lr=1e-4`, `rollout=sync`).
        task_settings: Nested settings that the task itself recommends.
        num_workers: What W is already: its processes have been started. None: it is chosen.
        auto_is_gpu: Whether `rollout.device=auto` of an env is a GPU; `load_run_config` asks the
            env's kind.

    Returns:
        The configuration, with `auto` workers and seed -1 resolved.

    Raises:
        ConfigError: In one line: the key, what is wrong, what would be right.
    """
    user = resolve(cfg)
    _join_devices(user)
    refuse_foreign(user, "")
    refuse_unknown(user, RunConfig, "")
    recommended = (user.get("env") or {}).get("appo") or {}
    refuse_unknown(recommended, RunConfig, "env.appo.")

    config = merge_layers(RunConfig, [task_settings or {}, recommended], user, typed)
    check_names(config)
    check_bounds(config)
    check_devices(config)
    place(config, auto_is_gpu(config.env), num_workers)
    check_rest(config, typed)
    if config.experiment.seed == -1:
        config.experiment.seed = secrets.randbelow(2**31)
    return config


def complete(config: RunConfig, default_num_envs: int, typed: Sequence[str]) -> list[str]:
    """Fill in what only the described task knows; changes `config` in place.

    Args:
        config: From `load_config`.
        default_num_envs: Envs of the task when nobody says how many, over all workers.
        typed: The user's override tokens.

    Returns:
        One line for each thing that was changed, to be shown.

    Raises:
        ConfigError: A typed minibatch does not fit into N_buffer.
    """
    rollout, ppo, notes = config.rollout, config.ppo, []
    if rollout.envs_per_worker is None:
        rollout.envs_per_worker = max(1, default_num_envs // config.num_collectors)
        total = config.num_collectors * rollout.envs_per_worker
        if total != default_num_envs:
            notes.append(
                f"envs {default_num_envs:,} -> {total:,}: the env's own number does not divide "
                f"among {config.num_collectors} workers, each has {rollout.envs_per_worker:,}"
            )
    if rollout.device == "auto":
        rollout.device = "cpu"  # a task that has a device of its own has said so by now
    if config.experiment.name is None:
        name = (config.env.id or config.env.task or "run").lower()
        config.experiment.name = "".join(c if c in SAFE_NAME else "-" for c in name)
    sizes = (
        f"N_buffer = W*B*T = {config.num_collectors}*{rollout.envs_per_worker}"
        f"*{rollout.steps_per_env} = {config.n_buffer}"
    )
    if ppo.num_mini_batches is not None:
        if ppo.num_mini_batches > config.n_buffer:
            raise ConfigError(f"ppo.num_mini_batches={ppo.num_mini_batches}: larger than {sizes}")
        ppo.batch_size = -(-config.n_buffer // ppo.num_mini_batches)
        if (count := -(-config.n_buffer // ppo.batch_size)) != ppo.num_mini_batches:
            notes.append(f"ppo.num_mini_batches {ppo.num_mini_batches} -> {count}: {sizes}")
    elif ppo.batch_size > config.n_buffer:
        if is_typed("ppo.batch_size", typed):
            raise ConfigError(
                f"ppo.batch_size={ppo.batch_size}: larger than {sizes}; lower it, or raise "
                "rollout.envs_per_worker or rollout.steps_per_env"
            )
        notes.append(f"ppo.batch_size {ppo.batch_size} -> {config.n_buffer}: {sizes}")
        ppo.batch_size = config.n_buffer
    return notes


def _join_devices(user: dict[str, Any]) -> None:
    """Write a list of the simulation's devices as the text that `rollout.device` is."""
    rollout = user.get("rollout")
    devices = rollout.get("device") if isinstance(rollout, dict) else None
    if isinstance(rollout, dict) and isinstance(devices, list):
        rollout["device"] = ",".join(str(device).strip() for device in devices)
