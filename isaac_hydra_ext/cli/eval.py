"""Play episodes of a checkpoint's policy, with deterministic actions.

    appo eval RUN [--episodes 32] [--seed 0] [--video] [--json]
    appo play run=RUN checkpoint=best env.kwargs.g=5
    appo eval latest [experiment.name=NAME] [experiment.output_dir=logs/appo]
    appo play RUN --viewer [--follow] [--num_envs 1] [--port 8080]

RUN is a run directory, a checkpoint file, `latest` or `best`, as `resume` has them. Runs in one
process of its own; a training is not disturbed by it. `appo play` is the same command, and also
shows it.
"""

import sys
from dataclasses import fields

from isaac_hydra_ext.checkpoints.saved_policy import config_of
from isaac_hydra_ext.cli.main import end_process, run_reporting_errors
from isaac_hydra_ext.cli.named_checkpoint import (
    add_checkpoint_arguments,
    find,
    say_found,
    task_asked,
)
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.cli.playing import EPISODES, add_playing_arguments, show
from isaac_hydra_ext.cli.watching import add_viewer_arguments, check_viewer_arguments, say
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.evaluation.browser import Browser
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate, video_path, with_overrides
from isaac_hydra_ext.evaluation.viewer import watch

HOST, PORT = "127.0.0.1", 8080


def _parser(command: str) -> CommandParser:
    parser = CommandParser(
        prog=f"appo {command}",
        description=(__doc__ or "").splitlines()[0],
        epilog="Any other KEY=VALUE changes the configuration that the policy was trained with: "
        "env.kwargs.g=5, rollout.device=cuda:0.",
    )
    add_checkpoint_arguments(parser)
    add_playing_arguments(parser)
    parser.set_defaults(episodes=None)  # a viewing has no end
    parser.add_argument(
        "--num_envs", type=int, help="side by side (default: 32 at most; viewer: 1)"
    )
    parser.add_argument("--real-time", action="store_true", help="no faster than the real world")
    parser.add_argument("--video", action="store_true", help="an MP4 in the run's videos/")
    parser.add_argument("--video_length", type=int, default=200, help="[frames] (default: 200)")
    add_viewer_arguments(parser)
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
        check_viewer_arguments(arguments, command)
        words = [word for word in (arguments.run, *arguments.settings) if word is not None]
        overrides = [word for word in words if _is_override(word)]
        words = [word for word in words if word not in overrides]
        checkpoint = say_found(
            find(words[0] if words else None, words[1:], command, task_asked(overrides))
        )
        length = f"logging.video.length={arguments.video_length}"
        config = with_overrides(config_of(checkpoint), [*overrides, length])
        if arguments.viewer:
            watch(
                checkpoint,
                arguments.seed,
                config,
                browser=Browser(arguments.host or HOST, arguments.port or PORT, say),
                say=say,
                num_envs=1 if arguments.num_envs is None else arguments.num_envs,
                episodes=arguments.episodes,
                follow=arguments.follow,
            )
            return
        result = evaluate(
            checkpoint,
            EPISODES if arguments.episodes is None else arguments.episodes,
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
