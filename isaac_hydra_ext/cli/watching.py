"""What `appo play` can be told of its viewer. Runs in the process that plays."""

import argparse
import sys

from isaac_hydra_ext.errors import ConfigError

FLAGS = ("follow", "host", "port")  # of the viewer alone
OTHERS = ("video", "json")  # of what is no viewing


def add_viewer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--viewer`, `--follow`, `--host`, `--port`."""
    group = parser.add_argument_group("to watch it (appo play)")
    group.add_argument(
        "--viewer",
        action="store_true",
        help="in the browser (mjlab, MuJoCo), or in Gymnasium's window, until Ctrl-C",
    )
    group.add_argument(
        "--follow", action="store_true", help="with each new checkpoint of a running training"
    )
    group.add_argument("--host", help="to listen at (default: 127.0.0.1, this machine alone)")
    group.add_argument("--port", type=_port, help="(default: 8080, or the next that is free)")


def check_viewer_arguments(arguments: argparse.Namespace, command: str) -> None:
    """Refuse flags that do not go together.

    Raises:
        ConfigError: Names them.
    """
    if arguments.viewer and command != "play":
        raise ConfigError(
            f"--viewer: appo {command} prints numbers; appo play RUN --viewer shows it"
        )
    for flag in FLAGS:
        if getattr(arguments, flag) and not arguments.viewer:
            raise ConfigError(f"--{flag}: of the viewer; appo play RUN --viewer --{flag} ...")
    for flag in OTHERS:
        if arguments.viewer and getattr(arguments, flag):
            raise ConfigError(f"--{flag}: not with --viewer; leave one of them out")


def say(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, file=sys.stdout, flush=True)


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 .. 65535")
    return port
