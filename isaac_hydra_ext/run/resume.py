"""What a run goes on from. Runs in the learner's process, before and while the run is built."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint, list_checkpoints, task_of
from isaac_hydra_ext.checkpoints.fit import check_fits, fitting_part, networks_alone
from isaac_hydra_ext.config.nested import value_at
from isaac_hydra_ext.config.schema import RunConfig, walk
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import CheckpointError, ConfigError, shown
from isaac_hydra_ext.learner.algorithm import Algorithm
from isaac_hydra_ext.learner.distillation.teacher import settle_teacher
from isaac_hydra_ext.run.directory import runs_root
from isaac_hydra_ext.run.ranks import Ranks
from isaac_hydra_ext.run.totals import RunTotals
from isaac_hydra_ext.terminal.console import RunConsole

SAME_POLICY = ("kind", "std_type", "squash", "activation", "obs_groups")
# May differ between a run and the one that goes on from it without a word.
UNTOLD_KNOBS = ("experiment.run_name", "experiment.output_dir", "experiment.max_iterations")
UNTOLD_GROUPS = ("resume", "logging.", "evaluate.", "env.trainer_defaults")


def find_resumed(
    config: RunConfig,
    console: RunConsole,
    ranks: Ranks = Ranks(),  # noqa: B008  # alone
) -> Checkpoint | None:
    """Load what `resume` names, and say what that means.

    Args:
        config: After `complete`.
        console: Shows damaged files, and knobs that differ from the checkpoint's.
        ranks: All go on from the file that the first one finds, each with its part of it.

    Raises:
        CheckpointError: Nothing there, or a named file that does not load.
        ConfigError: It has done all iterations already.
    """
    _settle_teacher(config, ranks)
    if list_checkpoints(Path(ranks.restarted_from, "checkpoints")):
        config.resume = ranks.restarted_from  # of the attempt before
    if not ranks.is_first:
        config.resume = ranks.group.exchange(None)[0]
    if config.resume is None:
        if ranks.is_first:
            ranks.group.exchange(None)
        return None
    # Where what fits is taken, it may be of another task.
    task = None if config.checkpoint.partial else task_of(config.to_dict()["env"])
    checkpoint, notes, why = find_checkpoint(config.resume, runs_root(config), task=task)
    if ranks.is_first:
        ranks.group.exchange(str(checkpoint.path.absolute()))
    for note in notes:
        console.warn(note)
    if why:
        console.say(why)
    done, total = checkpoint.meta["iteration"], last_iteration(config, checkpoint)
    if done >= total:
        raise ConfigError(
            f"resume={config.resume}: {done} of {total} iterations are done; raise "
            "experiment.max_iterations (the total) or experiment.max_env_steps to go on"
        )
    _refuse_another_policy(config, checkpoint)
    resumed_totals(checkpoint)  # refused here, before any process starts
    console.say(f"resuming {checkpoint.path} at iteration {done}")
    for change in changed_knobs(checkpoint.meta["config"], config):
        console.say(f"other than in that run: {change}")
    go_on, collectors = (
        keep_env_states(config, checkpoint),
        config.num_collectors * config.seat.size,
    )
    if not go_on:
        console.say("no env states of these envs there: all episodes start anew")
    elif go_on < collectors:
        console.say(f"the envs of {go_on} of {collectors} collectors go on; the others start anew")
    elif not checkpoint.meta["spec"].get("whole_state", True):
        console.say("the envs' curriculum goes on; all episodes start anew")
    config.resume = str(checkpoint.path.absolute())  # what it meant, for `params/agent.yaml`
    return checkpoint


def _settle_teacher(config: RunConfig, ranks: Ranks) -> None:
    """Have every rank learn from the checkpoint that the first one finds."""
    if not config.has_teacher:
        return
    if ranks.is_first:
        settle_teacher(config)
    teacher = ranks.group.exchange(asdict(config.distillation))[0]
    config.distillation = replace(config.distillation, **teacher)


def _refuse_another_policy(config: RunConfig, checkpoint: Checkpoint) -> None:
    """Refuse knobs under which the same weights are another policy (`partial` says: so be it)."""
    saved, policy = checkpoint.meta["config"]["policy"], config.to_dict()["policy"]
    kind = _kind_of(checkpoint, config)
    if kind != config.algorithm.kind and not config.checkpoint.partial:
        raise CheckpointError(
            f"{checkpoint.path}: was trained with algorithm.kind={kind}, here it is "
            f"{config.algorithm.kind}; checkpoint.partial=true takes what fits of its networks"
        )
    for name in SAME_POLICY:
        if saved.get(name, policy[name]) != policy[name] and not config.checkpoint.partial:
            raise CheckpointError(
                f"{checkpoint.path}: was trained with policy.{name}={saved[name]}, here it is "
                f"{policy[name]}: the same weights would act differently; set it as it was, or say "
                "checkpoint.partial=true"
            )


def _kind_of(checkpoint: Checkpoint, config: RunConfig) -> str:
    """Return the algorithm that a checkpoint was trained with."""
    return value_at(checkpoint.meta["config"], "algorithm.kind", config.algorithm.kind)


def last_iteration(config: RunConfig, resumed: Checkpoint | None) -> int:
    """Return the iteration that the run ends after: whichever limit comes first.

    Args:
        config: After `complete`.
        resumed: Its env steps count, whatever its N_buffer was.
    """
    limit, steps = config.experiment.max_iterations, config.experiment.max_env_steps
    if steps is None:
        return limit
    meta = resumed.meta if resumed else {"iteration": 0, "env_steps": 0}
    left = max(0, steps - meta["env_steps"])
    return min(limit, meta["iteration"] + -(-left // (config.n_buffer * config.seat.size)))


def keep_env_states(config: RunConfig, resumed: Checkpoint) -> int:
    """Leave this rank's part of the env states and episodes; drop those of other envs than here.

    On another number of ranks they are given to as many collectors as there are, in order.

    Returns:
        How many collectors, of all ranks, go on from theirs.
    """
    meta, seat, env = resumed.meta, config.seat, config.to_dict()["env"]
    saved, ranks = meta["config"], int(meta.get("ranks", 1))
    rollout, each = saved["rollout"], config.num_collectors
    theirs, ours = max(1, int(rollout["num_workers"])) * ranks, each * seat.size
    same_envs = rollout["envs_per_worker"] == config.rollout.envs_per_worker and all(
        saved["env"].get(key) == env[key] for key in ("kind", "id", "task", "kwargs")
    )
    as_far_as_they_go = theirs == ours or ranks != seat.size
    if config.checkpoint.partial or not (same_envs and as_far_as_they_go):
        meta["env_states"] = None
    states, episodes = meta["env_states"], meta["episodes"]
    if not states:
        episodes.pop("running", None)
    mine = slice(seat.rank * each, (seat.rank + 1) * each)
    for name, rows in episodes.get("running", {}).items():
        episodes["running"][name] = rows[mine]
    if states:
        meta["env_states"] = [*states[mine], *[None] * each][:each]
    episodes["finished"] = episodes["finished"][seat.rank :: seat.size]
    episodes["total"] = 0 if seat.rank else episodes["total"]
    return min(ours, len(states or ()))


def resumed_totals(resumed: Checkpoint) -> RunTotals:
    """Return the totals so far; what was in flight when they were written is gone for good.

    Raises:
        CheckpointError: They are not those of a run.
    """
    try:
        totals = RunTotals.from_json(resumed.meta["totals"])
    except ValueError as e:
        raise CheckpointError(f"{resumed.path}: {e}") from e
    totals.samples_abandoned = totals.samples_produced - totals.samples_consumed
    return totals


def changed_knobs(saved: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Return how a run's knobs differ from those of the run that it resumes.

    Args:
        saved: The checkpoint's `meta["config"]`.
        config: After `complete`.

    Returns:
        A line for each knob that differs: `ppo.lr: 0.001 -> 0.0005`.
    """
    lines, now = [], config.to_dict()
    for key, _, _ in walk(config):
        if key in UNTOLD_KNOBS or key.startswith(UNTOLD_GROUPS):
            continue
        value = value_at(now, key, None)
        before = value_at(saved, key, value)  # knobs that are new since then: as now
        if before != value:
            lines.append(f"{key}: {_as_typed(before)} -> {_as_typed(value)}")
    return lines


def _as_typed(value: Any) -> str:
    return shown(value if isinstance(value, str) else json.dumps(value))


def restore(
    algorithm: Algorithm,
    resumed: Checkpoint | None,
    spec: EnvSpec,
    config: RunConfig,
    warn: Callable[[str], None],
    ranks: Ranks,
) -> None:
    """Take over everything that a checkpoint holds of what was learned, if there is one.

    Args:
        algorithm: Which goes on from there.
        resumed: From `find_resumed`.
        spec: Of one collector's env.
        config: The complete one.
        warn: Called with what does not fit, with `checkpoint.partial`.
        ranks: All of which begin with the first one's bits.

    Raises:
        CheckpointError: It is of another env or network.
    """
    if resumed is not None:
        own, data = algorithm.state_dict(), spec.to_json()
        if _kind_of(resumed, config) != config.algorithm.kind:
            resumed = networks_alone(resumed, own)
        if config.checkpoint.partial:
            resumed, left_out = fitting_part(resumed, own, data)
            for line in left_out:
                warn(line)
        else:
            check_fits(resumed, own, data)
        algorithm.load_state_dict(resumed.tensors, resumed.meta["config"])
    ranks.level(algorithm)
