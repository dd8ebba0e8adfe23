"""From what Hydra composed to a `RunConfig`, in two steps, each with all its errors.

Runs in the learner's process, before any worker exists, and looks at nothing but its arguments:
what the machine must have is `config/machine.py`'s to check. `read` needs no task; what depends on
one (how many envs, its recommended settings) comes later, through `Settings.config` and `complete`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig

from isaac_hydra_ext.config.checks import SAFE_NAME, check
from isaac_hydra_ext.config.layers import merge_layers, with_one_size
from isaac_hydra_ext.config.nested import value_at
from isaac_hydra_ext.config.plain import refuse_foreign, refuse_unknown, resolve
from isaac_hydra_ext.config.policy_checks import check_burn_in
from isaac_hydra_ext.config.renamed import NOTE, has_old_names, with_new_names
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.typed import as_tokens, is_typed
from isaac_hydra_ext.config.unread import typed_in_vain
from isaac_hydra_ext.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """What a user has set, anywhere and in any spelling; a run's configuration is made of it.

    Attributes:
        user: What is set, nested as `RunConfig` is; what nobody has set is not there.
        recommended: `env.trainer_defaults`, what an env's file recommends, likewise.
        typed: The user's override tokens.
        resume_key: How the application's command line names `resume`.
        notes: Lines for the user, of names that are others now.
        drawn_seed: What `experiment.seed=-1` stands for.
    """

    user: Mapping[str, Any]
    recommended: Mapping[str, Any]
    typed: Sequence[str]
    resume_key: str
    notes: Sequence[str]
    drawn_seed: int
    _cfg: DictConfig | Mapping[str, Any]

    def config(self, task_settings: Mapping[str, Any] | None = None) -> RunConfig:
        """Return the checked configuration; no machine, and but for its settings no task.

        Precedence, highest first: the user, `env.trainer_defaults`, `task_settings`, the schema.

        Args:
            task_settings: Nested settings that the task itself recommends.

        Returns:
            With seed -1 drawn, to the same number each time. `auto` workers are placed later.

        Raises:
            ConfigError: In one line: the key, what is wrong, what would be right.
        """
        layers = [_with_joined_devices(layer) for layer in (task_settings or {}, self.recommended)]
        below = merge_layers(RunConfig, layers)
        composed = with_new_names(resolve(self._cfg, below.to_dict()))
        user = with_one_size(composed, self.typed)
        config = merge_layers(RunConfig, [*layers, _with_joined_devices(user)])
        check(config)
        if config.experiment.seed == -1:
            config.experiment.seed = self.drawn_seed
        return config


def read(
    cfg: DictConfig | Mapping[str, Any],
    typed: Sequence[str] | ListConfig = (),
    package: str = "",
) -> Settings:
    """Read what a user has set.

    Args:
        cfg: What Hydra composed, or a part of it. A top-level `hydra` node is ignored; a knob that
            is `???` is not set.
        typed: The user's override tokens (`ppo.lr=1e-4`, `rollout=sync`). What they set is in
            `cfg` already: they say which of two ways to size a minibatch was meant.
        package: Where `cfg` lies in the application's configuration, e.g. `appo`.

    Raises:
        ConfigError: Something that is no setting, or a key that no knob has.
    """
    composed = resolve(cfg, RunConfig().to_dict())
    user = with_new_names(composed)
    refuse_foreign(user, "")
    refuse_unknown(user, RunConfig, "")
    recommended = user.get("env", {}).get("trainer_defaults", {})
    refuse_unknown(recommended, RunConfig, "env.trainer_defaults.")
    resume_key = f"++{package}.resume" if package else "resume"
    drawn = secrets.randbelow(2**31)  # once, in case it is asked for: experiment.seed=-1
    notes = [NOTE] if has_old_names(composed) else []
    return Settings(user, recommended, as_tokens(typed, package), resume_key, notes, drawn, cfg)


def complete(
    config: RunConfig,
    default_num_envs: int,
    typed: Sequence[str],
    user: Mapping[str, Any] | None = None,
) -> list[str]:
    """Fill in what only the described task knows; changes `config` in place.

    Args:
        config: From `Settings.config`, placed.
        default_num_envs: Envs of the task when nobody says how many, over all workers.
        typed: The user's override tokens.
        user: What the user has set, `Settings.user`.

    Returns:
        One line for each thing that was changed, or typed in vain, to be shown.

    Raises:
        ConfigError: A typed minibatch, or the burn-in, does not fit.
    """
    rollout, ppo, notes = config.rollout, config.ppo, typed_in_vain(config, typed)
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
    check_burn_in(config)
    if config.has_teacher:
        return notes  # its minibatches are windows of time
    sizes = (
        f"N_buffer = W*B*T = {config.num_collectors}*{rollout.envs_per_worker}"
        f"*{rollout.steps_per_env} = {config.n_buffer}"
    )
    if ppo.num_mini_batches is not None:
        if ppo.num_mini_batches > config.n_buffer:
            raise ConfigError(f"ppo.num_mini_batches={ppo.num_mini_batches}: larger than {sizes}")
        asked = value_at(user, "ppo.batch_size", None)
        ppo.batch_size = -(-config.n_buffer // ppo.num_mini_batches)
        if asked not in (None, ppo.batch_size):  # both are in files; as a run's own record has them
            notes.append(
                f"ppo.batch_size {asked} -> {ppo.batch_size}: ppo.num_mini_batches="
                f"{ppo.num_mini_batches} is set too, and {sizes}"
            )
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
    if config.policy.recurrent.kind:
        check_columns(config)
        symmetry = ppo.symmetry
        if symmetry.use_data_augmentation or symmetry.use_mirror_loss:
            raise ConfigError(
                "ppo.symmetry: mirrors single samples, and policy.recurrent learns from whole "
                "columns; leave one of the two out"
            )
    return notes


def check_columns(config: RunConfig) -> None:
    """Check that a policy with memory has an env for each minibatch: one is all T steps of some.

    Raises:
        ConfigError: It has more minibatches than envs.
    """
    rollout, ppo = config.rollout, config.ppo
    columns = config.n_buffer // rollout.steps_per_env
    if (minibatches := -(-config.n_buffer // ppo.batch_size)) > columns:
        raise ConfigError(
            f"ppo.num_mini_batches={minibatches} (batch_size={ppo.batch_size}): more than the "
            f"{columns} envs; with policy.recurrent a minibatch is all T = "
            f"{rollout.steps_per_env} steps of one env or more, so at most {columns} minibatches "
            f"or a batch_size of {rollout.steps_per_env} at least"
        )


def _with_joined_devices(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write a list of the simulation's devices as the text that `rollout.device` is."""
    rollout = layer.get("rollout")
    devices = rollout.get("device") if isinstance(rollout, Mapping) else None
    if not isinstance(devices, list):
        return layer
    text = ",".join(str(device).strip() for device in devices)
    return {**layer, "rollout": {**rollout, "device": text}}  # type: ignore[dict-item]
