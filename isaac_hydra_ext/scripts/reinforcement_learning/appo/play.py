r"""Isaac Lab's play command line: whole episodes with a trained policy's deterministic actions.

    ./isaaclab.sh -p -m isaac_hydra_ext.scripts.reinforcement_learning.appo.play \
        --task Isaac-Velocity-Flat-Unitree-Go1-v0 --checkpoint latest

Runs in one process, which hosts the simulation. The task's `-Play` id is used where there is one,
else its `play_mode()`. With a display, 2.x opens its window, unless it is to be headless.
"""

import sys
from pathlib import Path

from isaac_hydra_ext.checkpoints.saved_policy import config_of
from isaac_hydra_ext.cli.main import end_process, run_reporting_errors
from isaac_hydra_ext.envs.viewing import has_display
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.evaluation.episodes import line_of
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate, with_overrides
from isaac_hydra_ext.scripts.reinforcement_learning.appo.flags import (
    Parser,
    hydra_tokens,
    shared_overrides,
    value_of,
)
from isaac_hydra_ext.scripts.reinforcement_learning.appo.runs import choose_checkpoint
from isaac_hydra_ext.scripts.reinforcement_learning.appo.train import DEFAULT_ROOT
from isaac_hydra_ext.system.streams import prepare_streams

# What Isaac Lab's play takes as well, and has no use for.
TRAININGS = ("--agent", "--run_name", "--logger", "--log_project_name")


def make_parser() -> Parser:
    """Return the parser of everything that `play` takes."""
    parser = Parser("play", "Play a trained policy. Further arguments override its configuration.")
    parser.add_argument("--episodes", type=int, default=32, help="whole episodes (default: 32)")
    parser.add_argument("--real-time", action="store_true", help="no faster than the real world")
    parser.add_argument("--experiment_name", help="directory of related runs")
    parser.add_argument("--resume", action="store_true", help="have --checkpoint be a regex")
    parser.add_argument("--load_run", help="regex of the run's directory name")
    for flag in TRAININGS:
        parser.add_argument(flag, help="not here: the training's")
    parser.add_argument("--use_pretrained_checkpoint", action="store_true", help="not available")
    return parser


def play(arguments: list[str]) -> None:
    """Play, and print mean and standard deviation of return and length.

    Raises:
        IsaacHydraExtError: Bad flags, no checkpoint, or a task that cannot be built.
    """
    flags, rest = make_parser().parse(arguments)
    if flags.use_pretrained_checkpoint:
        raise ConfigError(
            "--use_pretrained_checkpoint: NVIDIA's are rsl_rl's; --checkpoint takes one of this "
            "package's, latest or best"
        )
    for flag in TRAININGS:
        if getattr(flags, flag.removeprefix("--")) is not None:
            raise ConfigError(
                f"{flag}: the training's; play takes its settings from the checkpoint and keeps no "
                "log, leave it out"
            )
    tokens = [*hydra_tokens(rest), *shared_overrides(flags)]
    root = Path(value_of("experiment.output_dir", tokens) or DEFAULT_ROOT).expanduser()
    checkpoint, notes = choose_checkpoint(
        root,
        value_of("env.task", tokens),
        flags.experiment_name,
        flags.load_run,
        flags.checkpoint,
        regex=flags.resume,
    )
    for note in notes:
        print(note, file=sys.stderr)
    config = with_overrides(config_of(checkpoint), tokens)
    config.env.play = True
    if has_display():
        config.env.launcher.setdefault("headless", False)  # 2.x opens its window
    if flags.video:
        config.env.launcher |= {"video": True, "video_length": flags.video_length}
    seed = 0 if flags.seed is None else config.experiment.seed  # -1 has been drawn
    at = f"iteration {checkpoint.meta['iteration']}, seed {seed}"
    print(f"checkpoint: {checkpoint.path} ({at})", flush=True)
    result = evaluate(
        checkpoint,
        flags.episodes,
        seed,
        config=config,
        num_envs=flags.num_envs,
        real_time=flags.real_time,
        run_dir=checkpoint.path.parent.parent,
    )
    print(line_of(result), flush=True)


def main() -> None:
    """Run the command line."""
    prepare_streams()
    arguments = sys.argv[1:]
    end_process(run_reporting_errors(lambda: play(arguments)))


if __name__ == "__main__":
    main()
