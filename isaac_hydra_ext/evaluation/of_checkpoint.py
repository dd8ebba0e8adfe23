"""A checkpoint's policy in its environment: N whole episodes, with deterministic actions.

Runs in one process of its own; a training is not disturbed by it.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.saved_policy import config_of, load_weights
from isaac_hydra_ext.config.machine import check_devices
from isaac_hydra_ext.config.nested import nested
from isaac_hydra_ext.config.reading import read
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.typed import parse
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.envs.registry import check_env, make_env
from isaac_hydra_ext.errors import CheckpointError, ConfigError, EnvError, shown
from isaac_hydra_ext.evaluation.episodes import check_returns, summarize_episodes
from isaac_hydra_ext.evaluation.playing import check_same_spaces, play_episodes
from isaac_hydra_ext.evaluation.video import DIRECTORY, VideoWriter, check_rendering
from isaac_hydra_ext.models.registry import make_policy

MAX_ENVS = 32


def evaluate(
    checkpoint: Checkpoint,
    episodes: int,
    seed: int,
    config: RunConfig | None = None,
    num_envs: int | None = None,
    real_time: bool = False,
    run_dir: Path | None = None,
    video: Path | None = None,
) -> dict[str, Any]:
    """Play whole episodes; see `play_episodes`.

    Args:
        checkpoint: The policy and its environment.
        episodes: N >= 1.
        seed: Of the environments.
        config: To play with; None: `config_of(checkpoint)`.
        num_envs: Played side by side, at most `episodes`; None: at most 32.
        real_time: Wait, so that a step takes as long as what it simulates.
        run_dir: Where the env may write.
        video: MP4 to make of env 0, as `config.logging.video` says.

    Returns:
        episodes, mean_return, std_return, mean_length [steps], std_length, iteration, checkpoint;
        with a video also its path.

    Raises:
        ConfigError: `episodes` or `num_envs` is not positive.
        EnvError: An episode does not end, or its return is NaN or Inf.
        RenderError: There can be no video.
        CheckpointError: The weights do not fit the env, or the networks of their configuration.
    """
    for name, number in (("episodes", episodes), ("num_envs", num_envs)):
        if number is not None and number < 1:
            raise ConfigError(f"--{name}={number}: must be at least 1")
    config = config or config_of(checkpoint)
    config.rollout.envs_per_worker = min(episodes, num_envs or MAX_ENVS)
    with ExitStack() as stack:
        env = make_env(config, seed, run_dir=run_dir, render=video is not None)
        stack.callback(env.close)
        check_trained_in(env.spec, checkpoint)
        policy = make_policy(config, env.spec, config.rollout.device)
        load_weights(policy, checkpoint)
        writer = None
        if video is not None:
            env.reset(seed)
            check_rendering(env)
            writer = stack.enter_context(VideoWriter(env, video, config.logging.video))
        returns, lengths = play_episodes(
            env,
            policy,
            episodes,
            seed,
            real_time=real_time,
            on_state=writer.add if writer else lambda: None,
        )
    check_returns(returns)
    return {
        **summarize_episodes(returns, lengths),
        "iteration": checkpoint.meta["iteration"],
        "checkpoint": str(checkpoint.path),
        **({"video": str(video)} if video is not None else {}),
    }


def check_trained_in(spec: EnvSpec, checkpoint: Checkpoint) -> None:
    """Refuse an env that a checkpoint's policy was not made for.

    Raises:
        CheckpointError: Its observations or its action are others.
    """
    try:
        check_same_spaces(spec, EnvSpec.from_json(checkpoint.meta["spec"]))
    except EnvError as e:
        raise CheckpointError(f"{checkpoint.path}: {e}") from e


def with_overrides(config: RunConfig, tokens: Sequence[str]) -> RunConfig:
    """Set what the tokens say above the configuration of the checkpoint.

    Raises:
        ConfigError: A key or a value that does not fit.
    """
    merged = OmegaConf.create(config.to_dict())
    for token in tokens:
        override = parse(token)
        if override.is_delete() or override.is_sweep_override():
            raise ConfigError(f"{shown(token)}: KEY=VALUE is expected here, with one value")
        merged.merge_with(nested(override.key_or_group, override.value()))
    changed = read(merged, tokens).config()
    check_devices(changed)
    check_env(changed)
    return changed


def video_path(checkpoint: Checkpoint, seed: int) -> Path:
    """Return where a video of a checkpoint goes: the run's videos/, or here if it is in no run."""
    directory = checkpoint.path.absolute().parent
    run = directory.parent if directory.name == "checkpoints" else Path.cwd()
    return run / DIRECTORY / f"play_{checkpoint.meta['iteration']}_seed{seed}.mp4"
