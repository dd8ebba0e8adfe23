"""What the commands that play episodes take and print.

Imports no torch, as `appo run-onnx` must not. Runs in the process that plays.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.cli.parser import seed
from isaac_hydra_ext.evaluation.episodes import line_of

EPISODES = 32


def add_playing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what playing can be told: `--episodes`, `--seed`, `--json`."""
    parser.add_argument(
        "--episodes",
        "--num_episodes",
        type=int,
        default=EPISODES,
        help=f"whole ones (default: {EPISODES})",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the environments (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a line")


def show(result: Mapping[str, Any], as_json: bool, played: str) -> None:
    """Print a result, as JSON or as a line that ends with what was played."""
    print(json.dumps(result) if as_json else f"{line_of(result)} ({played})")
