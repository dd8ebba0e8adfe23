"""What playing whole episodes comes to, said the same way by every command that does it.

Imports no torch: a robot's computer has none. Runs in the process that plays.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isaac_hydra_ext.cli.parser import seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what playing can be told: `--episodes`, `--seed`, `--json`."""
    parser.add_argument(
        "--episodes", "--num_episodes", type=int, default=32, help="whole ones (default: 32)"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the environments (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a line")


def summarize_episodes(returns: Sequence[float], lengths: Sequence[int]) -> dict[str, Any]:
    """Return episodes, mean_return, std_return, mean_length [steps], std_length."""
    return {
        "episodes": len(returns),
        "mean_return": float(np.mean(returns)),
        "std_return": float(np.std(returns)),
        "mean_length": float(np.mean(lengths)),
        "std_length": float(np.std(lengths)),
    }


def line_of(result: Mapping[str, Any]) -> str:
    """Return `summarize_episodes`' result as one line."""
    return (
        "{episodes} episodes: return {mean_return:.2f} +- {std_return:.2f}, length "
        "{mean_length:.1f} +- {std_length:.1f}"
    ).format(**result)


def show(result: Mapping[str, Any], as_json: bool, played: str) -> None:
    """Print a result, as JSON or as a line that ends with what was played."""
    print(json.dumps(result) if as_json else f"{line_of(result)} ({played})")
