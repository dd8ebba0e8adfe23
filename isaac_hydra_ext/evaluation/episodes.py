"""The statistics of whole episodes, formatted the same way wherever they are played.

Imports no torch: a robot's computer has none. Runs in the process that plays.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from isaac_hydra_ext.errors import InvalidNumberError


def summarize_episodes(returns: Sequence[float], lengths: Sequence[int]) -> dict[str, Any]:
    """Return episodes, mean_return, std_return, mean_length [steps], std_length."""
    return {
        "episodes": len(returns),
        "mean_return": float(np.mean(returns)),
        "std_return": float(np.std(returns)),
        "mean_length": float(np.mean(lengths)),
        "std_length": float(np.std(lengths)),
    }


def check_returns(returns: Sequence[float]) -> None:
    """Refuse what nothing can be made of.

    Raises:
        InvalidNumberError: A return is NaN or Inf.
    """
    if wrong := [x for x in returns if not isfinite(x)]:
        raise InvalidNumberError(
            f"{len(wrong)} of {len(returns)} episodes have a return of {wrong[0]}: the env gave a "
            "reward that is NaN or Inf; appo check says where it does so under random actions"
        )


def line_of(result: Mapping[str, Any]) -> str:
    """Return `summarize_episodes`' result as one line."""
    return (
        "{episodes} episodes: return {mean_return:.2f} +- {std_return:.2f}, length "
        "{mean_length:.1f} +- {std_length:.1f}"
    ).format(**result)
