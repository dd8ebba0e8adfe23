"""Evaluation: N whole episodes of a checkpoint's policy, with deterministic actions.

    appo eval RUN [--episodes 32] [--seed 0] [--json]
    appo eval latest [experiment.name=NAME] [experiment.output_dir=logs/appo]

RUN is a run directory, a checkpoint file, `latest` or `best`, as `resume` has them. Runs in one
process of its own; a training is not disturbed by it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isaac_hydra_ext.checkpoint import Checkpoint, find_checkpoint
from isaac_hydra_ext.command_line import end_process, run_reporting_errors
from isaac_hydra_ext.config import ExperimentConfig, RunConfig, load_config
from isaac_hydra_ext.config_checks import as_path, shown
from isaac_hydra_ext.envs.registry import make_env
from isaac_hydra_ext.envs.vec_env import VecEnv
from isaac_hydra_ext.episodes import add_arguments, show, summarize_episodes
from isaac_hydra_ext.errors import CheckpointError, ConfigError, EnvError, did_you_mean
from isaac_hydra_ext.models.actor_critic import ActorCritic

MAX_ENVS = 32
MAX_STEPS = 100_000  # of one episode
CRITIC = ("critic.", "critic_normalizers.", "value_normalizer.")  # what acting does not read


def evaluate(
    checkpoint: Checkpoint,
    episodes: int,
    seed: int,
    config: RunConfig | None = None,
    num_envs: int | None = None,
    real_time: bool = False,
    run_dir: Path | None = None,
) -> dict[str, Any]:
    """Play whole episodes with the mean (or most likely) action.

    Every env plays its fixed share of the episodes, so that short ones are not over-represented.

    Args:
        checkpoint: The policy and its environment.
        episodes: N >= 1.
        seed: Of the environments.
        config: To play with; None: `config_of(checkpoint)`.
        num_envs: Played side by side, at most `episodes`; None: at most 32.
        real_time: Wait, so that a step takes as long as what it simulates.
        run_dir: Where the env may write.

    Returns:
        episodes, mean_return, std_return, mean_length [steps], std_length, iteration, checkpoint.

    Raises:
        ConfigError: `episodes` is not positive.
        EnvError: An episode does not end.
        CheckpointError: The weights do not fit the networks of their own configuration.
    """
    if episodes < 1:
        raise ConfigError(f"--episodes={episodes}: must be at least 1")
    config = config or config_of(checkpoint)
    config.rollout.envs_per_worker = min(episodes, MAX_ENVS if num_envs is None else num_envs)
    env = make_env(config, seed, run_dir=run_dir)
    try:
        policy = ActorCritic(config.policy, env.spec, config.experiment.seed, config.rollout.device)
        load_policy(policy, checkpoint)
        returns, lengths = _play(env, policy, episodes, seed, real_time)
    finally:
        env.close()
    return {
        **summarize_episodes(returns, lengths),
        "iteration": checkpoint.meta["iteration"],
        "checkpoint": str(checkpoint.path),
    }


def config_of(checkpoint: Checkpoint) -> RunConfig:
    """Return the configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: It holds none that a run could have.
    """
    saved = deepcopy(checkpoint.meta["config"])
    try:
        saved["env"]["appo"] = {}  # its recommendations have been taken, or overruled
        # Of this process, not of that run.
        saved["experiment"].update(device="cpu", output_dir=tempfile.gettempdir())
        if not torch.cuda.is_available():
            saved["rollout"]["device"] = "cpu"
        saved["ppo"]["precision"] = "fp32"
        saved["resume"] = None
        return load_config(saved)
    except (ConfigError, KeyError) as e:
        raise CheckpointError(f"{checkpoint.path}: its configuration is no run's: {e}") from e


def load_policy(policy: ActorCritic, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights and normalisers into `policy`.

    Of an actor's file (`appo export --actor`) the critic stays as it was initialised.

    Raises:
        CheckpointError: Names the first tensor that does not fit.
    """
    for name, tensor in policy.state_dict().items():
        if checkpoint.meta.get("actor_only") and name.startswith(CRITIC):
            continue
        found = checkpoint.tensors.get(f"policy.{name}")
        if found is None or found.shape != tensor.shape or found.dtype != tensor.dtype:
            is_now = "missing" if found is None else f"{tuple(found.shape)} of {found.dtype}"
            raise CheckpointError(
                f"{checkpoint.path}: policy.{name} is {is_now}, expected {tuple(tensor.shape)} "
                f"of {tensor.dtype}"
            )
        tensor.copy_(found)


@torch.inference_mode()
def _play(
    env: VecEnv, policy: ActorCritic, episodes: int, seed: int, real_time: bool
) -> tuple[list[float], list[int]]:
    B = env.spec.num_envs
    quota_B = np.array([episodes // B + (b < episodes % B) for b in range(B)])
    return_B, length_B = np.zeros(B), np.zeros(B, np.int64)
    returns: list[float] = []
    lengths: list[int] = []
    obs = env.reset(seed)
    while quota_B.any():
        started = time.monotonic()
        action = policy.distribution.mode(policy.action_params(obs))
        result = env.step(policy.distribution.to_env(action))
        obs = result.obs
        return_B += result.reward_B.cpu().numpy()
        length_B += 1
        done_B = (result.terminated_B | result.truncated_B).cpu().numpy()
        counted_B = done_B & (quota_B > 0)
        returns += return_B[counted_B].tolist()
        lengths += length_B[counted_B].tolist()
        quota_B[counted_B] -= 1
        if length_B[quota_B > 0].max(initial=0) >= MAX_STEPS:
            raise EnvError(
                f"an episode has not ended after {MAX_STEPS:,} steps; give the env a time limit "
                "(Gymnasium: max_episode_steps when it is registered)"
            )
        return_B[done_B], length_B[done_B] = 0.0, 0
        if real_time:
            time.sleep(max(0.0, env.spec.step_dt - (time.monotonic() - started)))
    return returns, lengths


def find(what: str, settings: Sequence[str], command: str = "eval") -> tuple[Checkpoint, list[str]]:
    """Load what the command line names.

    Args:
        what: A run directory, a checkpoint file, `latest` or `best`.
        settings: `experiment.name=...` and `experiment.output_dir=...`, where the words look;
            without a name, at all runs of the output directory.
        command: Of `appo`, for messages.

    Returns:
        As `find_checkpoint`.

    Raises:
        ConfigError: Another setting.
        CheckpointError: As `find_checkpoint`.
    """
    where = {"experiment.name": "", "experiment.output_dir": ExperimentConfig().output_dir}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in where or not value:
            hint = did_you_mean(key, where) or f"; there are {' and '.join(where)}"
            raise ConfigError(f"{shown(setting)}: not a setting of appo {command}{hint}")
        where[key] = value
    root = as_path("experiment.output_dir", where["experiment.output_dir"])
    name = where["experiment.name"]
    runs = as_path("experiment.name", str(root / name)) if name else root
    return find_checkpoint(what, runs, key=f"appo {command} ", pattern="*" if name else "*/*")


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `find` takes: `run` and `settings`."""
    parser.add_argument(
        "run",
        help="a run directory (its newest checkpoint), a checkpoint file, latest (of all runs), "
        "or best (the highest mean return in training)",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="SETTING",
        help="where latest and best look: experiment.name=NAME (default: every name), "
        "experiment.output_dir=DIR (default: logs/appo)",
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="appo eval", description=(__doc__ or "").splitlines()[0])
    add_checkpoint_arguments(parser)
    add_arguments(parser)
    arguments = parser.parse_intermixed_args()

    def task() -> None:
        checkpoint, notes = find(arguments.run, arguments.settings)
        for note in notes:
            print(note, file=sys.stderr)
        result = evaluate(checkpoint, arguments.episodes, arguments.seed)
        show(result, arguments.json, result["checkpoint"])

    end_process(run_reporting_errors(task))


if __name__ == "__main__":
    main()
