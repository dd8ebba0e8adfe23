"""Play N whole episodes of a checkpoint's policy, with deterministic actions.

    appo eval RUN [--episodes 32] [--seed 0] [--video] [--json]
    appo play run=RUN checkpoint=best env.kwargs.g=5
    appo eval latest [experiment.name=NAME] [experiment.output_dir=logs/appo]

RUN is a run directory, a checkpoint file, `latest` or `best`, as `resume` has them. Runs in one
process of its own; a training is not disturbed by it. `appo play` is the same command.
"""

import argparse
import glob
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint, list_runs
from isaac_hydra_ext.cli.main import end_process, run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.config.checks import RESUME_WORDS, as_path
from isaac_hydra_ext.config.schema import ExperimentConfig, RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.envs.registry import make_env
from isaac_hydra_ext.errors import CheckpointError, ConfigError, EnvError, did_you_mean, shown
from isaac_hydra_ext.evaluation.episodes import add_arguments, show, summarize_episodes
from isaac_hydra_ext.evaluation.playing import check_same_spaces, play_episodes
from isaac_hydra_ext.evaluation.video import DIRECTORY, VideoWriter, check_rendering
from isaac_hydra_ext.models.actor_critic import ActorCritic

MAX_ENVS = 32
# Of Isaac Lab's launcher flags those that a task may need; the others show or record something.
SIMULATED_WITH = ("enable_cameras", "experience", "rendering_mode", "kit_args", "deterministic")
CRITIC = ("critic.", "critic_normalizers.", "value_normalizer.")  # what acting does not read


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
        EnvError: An episode does not end.
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
        try:
            check_same_spaces(env.spec, EnvSpec.from_json(checkpoint.meta["spec"]))
        except EnvError as e:
            raise CheckpointError(f"{checkpoint.path}: {e}") from e
        policy = ActorCritic(config.policy, env.spec, config.experiment.seed, config.rollout.device)
        load_policy(policy, checkpoint)
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
    return {
        **summarize_episodes(returns, lengths),
        "iteration": checkpoint.meta["iteration"],
        "checkpoint": str(checkpoint.path),
        **({"video": str(video)} if video is not None else {}),
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
        if isinstance(launcher := saved["env"].get("launcher"), dict):
            saved["env"]["launcher"] = {k: v for k, v in launcher.items() if k in SIMULATED_WITH}
        saved["experiment"].update(device="cpu", output_dir=tempfile.gettempdir())
        if str(saved["rollout"]["device"]).startswith("cuda"):  # in one process, wherever it was
            here = "cuda:0" if torch.cuda.is_available() else "cpu"
            saved["rollout"].update(device=here, num_workers=0, on_invalid="stop")
        saved["ppo"]["precision"] = "fp32"
        saved["resume"] = None
        return load_run_config(saved)
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


def with_overrides(config: RunConfig, tokens: Sequence[str]) -> RunConfig:
    """Set what the tokens say above the configuration of the checkpoint.

    Raises:
        ConfigError: A key or a value that does not fit.
    """
    plain, given = [token.lstrip("+") for token in tokens], []
    for token in plain:
        if "=" not in token or token.startswith("~"):
            raise ConfigError(f"{token}: KEY=VALUE is expected here")
        try:
            given.append(OmegaConf.from_dotlist([token]))
        except (YAMLError, OmegaConfBaseException) as e:
            raise ConfigError(f"{shown(token)}: KEY=VALUE is expected here, as YAML has it") from e
    merged = OmegaConf.merge(config.to_dict(), *given)
    return load_run_config(OmegaConf.to_container(merged), plain)  # type: ignore[arg-type]


def find(
    what: str | None, settings: Sequence[str], command: str = "eval"
) -> tuple[Checkpoint, list[str]]:
    """Load what the command line names.

    Args:
        what: A run directory, a checkpoint file, `latest` or `best`; or the first setting.
        settings: `run=...` and `checkpoint=...`, which name it as well, and `experiment.name=...`
            and `experiment.output_dir=...`, where the words look; without a name, at all runs of
            the output directory.
        command: Of `appo`, for messages.

    Returns:
        As `find_checkpoint`.

    Raises:
        ConfigError: Another setting, or nothing is named.
        CheckpointError: As `find_checkpoint`.
    """
    where = {
        "run": "",
        "checkpoint": "",
        "experiment.name": "",
        "experiment.output_dir": ExperimentConfig().output_dir,
    }
    if what is not None and what.partition("=")[0] in where and "=" in what:
        what, settings = None, [what, *settings]
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in where or not value:
            hint = did_you_mean(key, where) or f"; there are {', '.join(where)}"
            raise ConfigError(f"{shown(setting)}: not a setting of appo {command}{hint}")
        where[key] = value
    run, checkpoint = where["run"] if what is None else what, where["checkpoint"]
    if what is not None and where["run"]:
        raise ConfigError(f"run={shown(where['run'])}: {shown(what)} is named already")
    key = f"appo {command} "
    if what is None and not run and not checkpoint:
        raise ConfigError(
            f"appo {command}: name a run directory, a checkpoint file, latest or best"
        )
    root = as_path("experiment.output_dir", where["experiment.output_dir"])
    name = where["experiment.name"]
    runs = as_path("experiment.name", str(root / name)) if name else root
    pattern = "*" if name else "*/*"
    if not checkpoint:
        return find_checkpoint(run, runs, key=key, pattern=pattern)
    if not run:
        return find_checkpoint(checkpoint, runs, key=f"{key}checkpoint=", pattern=pattern)
    return _find_in(_run_directory(run, runs, pattern, key), checkpoint, key)


def _run_directory(run: str, runs: Path, pattern: str, key: str) -> Path:
    """Return the directory that a run's name means, beside `checkpoint=`."""
    if run == "latest":
        found = list_runs(runs, pattern)
        if not found:
            raise CheckpointError(f"{key}{run}: there is no run under {runs}")
        return found[0]
    path = as_path(key.strip(), run)
    if not path.is_dir():
        raise CheckpointError(f"{key}{shown(run)}: no such run directory")
    return path


def _find_in(run: Path, checkpoint: str, key: str) -> tuple[Checkpoint, list[str]]:
    """Load `latest`, `best`, or a file of one run."""
    key = f"{key}run={shown(run)} checkpoint="
    if checkpoint in RESUME_WORDS:
        return find_checkpoint(checkpoint, run.parent, key=key, pattern=glob.escape(run.name))
    inside = as_path(key.strip(), str(run / "checkpoints" / checkpoint))
    return find_checkpoint(str(inside) if inside.is_file() else checkpoint, run.parent, key=key)


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `find` takes: `run` and `settings`."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="a run directory (its newest checkpoint), a checkpoint file, latest (of all runs), "
        "or best (the highest mean return in evaluation, or in training without any)",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],  # without one, argparse calls it required
        metavar="SETTING",
        help="run=RUN, checkpoint=latest|best|FILE (of that run, or of all); where latest and best "
        "look: experiment.name=NAME (default: every name), experiment.output_dir=DIR "
        "(default: logs/appo)",
    )


def video_path(checkpoint: Checkpoint, seed: int) -> Path:
    """Return where a video of a checkpoint goes: the run's videos/, or here if it is in no run."""
    directory = checkpoint.path.absolute().parent
    run = directory.parent if directory.name == "checkpoints" else Path.cwd()
    return run / DIRECTORY / f"play_{checkpoint.meta['iteration']}_seed{seed}.mp4"


def _parser(command: str) -> CommandParser:
    parser = CommandParser(
        prog=f"appo {command}",
        description=(__doc__ or "").splitlines()[0],
        epilog="Any other KEY=VALUE changes the configuration that the policy was trained with: "
        "env.kwargs.g=5, rollout.device=cuda:0.",
    )
    add_checkpoint_arguments(parser)
    add_arguments(parser)
    parser.add_argument("--num_envs", type=int, help="side by side (default: 32 at most)")
    parser.add_argument("--real-time", action="store_true", help="no faster than the real world")
    parser.add_argument("--video", action="store_true", help="an MP4 in the run's videos/")
    parser.add_argument("--video_length", type=int, default=200, help="[frames] (default: 200)")
    return parser


def _is_override(word: str) -> bool:
    """Return whether a word of the command line is for the configuration, not for `find`."""
    key, equals, _ = word.lstrip("+").partition("=")
    section, dot, _ = key.partition(".")
    return bool(equals and dot) and section in _SECTIONS and key not in _PLACES


_SECTIONS = {f.name for f in fields(RunConfig)}
_PLACES = ("experiment.name", "experiment.output_dir")


def main() -> None:
    """Run the command line."""
    command = "play" if sys.argv[0] == "appo play" else "eval"
    arguments = _parser(command).parse_intermixed_args()

    def task() -> None:
        words = [word for word in (arguments.run, *arguments.settings) if word is not None]
        overrides = [word for word in words if _is_override(word)]
        words = [word for word in words if word not in overrides]
        checkpoint, notes = find(words[0] if words else None, words[1:], command)
        for note in notes:
            print(note, file=sys.stderr)
        length = f"logging.video.length={arguments.video_length}"
        config = with_overrides(config_of(checkpoint), [*overrides, length])
        result = evaluate(
            checkpoint,
            arguments.episodes,
            arguments.seed,
            config=config,
            num_envs=arguments.num_envs,
            real_time=arguments.real_time,
            video=video_path(checkpoint, arguments.seed) if arguments.video else None,
        )
        show(result, arguments.json, result.get("video", result["checkpoint"]))

    end_process(run_reporting_errors(task))


if __name__ == "__main__":
    main()
