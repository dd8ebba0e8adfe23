"""What a Gymnasium env says in `info` when an episode ends, as numbers for curves.

Runs in the process that hosts the simulation.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

MAX_NAMES = 50  # of one env's curves
MAX_NAME = 100  # characters
EPISODE = "episode"  # where Gymnasium's RecordEpisodeStatistics puts what it has counted


class EpisodeInfo:
    """Reads the last `info` of episodes; the first `MAX_NAMES` names become curves."""

    def __init__(self) -> None:
        """Know no name yet."""
        self._names: set[str] = set()

    def read(self, infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return, by tag, the mean over the episodes that say something finite.

        Args:
            infos: Of the steps that ended an episode, one an episode.
        """
        said: dict[str, list[float]] = {}
        for info in infos:
            for name, number in _numbers(info):
                if name in self._names or len(self._names) < MAX_NAMES:
                    self._names.add(name)
                    said.setdefault(name, []).append(number)
        return {
            name if "/" in name else f"Episode/{name}": sum(values) / len(values)
            for name, values in said.items()
        }


def _numbers(info: Mapping[str, Any], below: str = "") -> Iterator[tuple[str, float]]:
    """Yield each finite number in `info`, and one level below it.

    A key that begins with `_` is the mask of another one, as Gymnasium's vector envs have them.
    """
    for key, value in info.items():
        name = f"{below}{key}"
        if not isinstance(key, str) or key.startswith("_") or len(name) > MAX_NAME:
            continue
        if isinstance(value, Mapping) and not below:
            yield from _numbers(value, "" if key == EPISODE else f"{key}/")
        elif isinstance(value, bool | int | float | np.generic | np.ndarray):
            found = np.asarray(value)
            if found.size == 1 and found.dtype.kind in "biuf" and np.isfinite(found).all():
                yield name, float(found.reshape(()))
