"""What a worker's replacement goes on from: the part of an env's state that outlives its episodes.

Runs in the process that hosts the simulation. A curriculum's step counter and levels are such a
part; they are too large for a pipe, and a dead worker says nothing any more, so they lie in a file.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EVERY_S = 1.0  # between two writes


class Handover:
    """A worker's file in the run's `workers/`."""

    def __init__(self, run_dir: Path, worker: int) -> None:
        """Nothing is read or written yet."""
        self._path = run_dir / "workers" / f"worker_{worker}_handover.json"
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the file is old enough to be written anew."""
        return time.monotonic() >= self._due

    def write(self, state: Mapping[str, Any] | None) -> None:
        """Write the file, which is whole at any time.

        On a full disk the one before stays: a curriculum some steps older is no reason to stop.
        """
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(state))
            os.replace(temporary, self._path)
        self._due = time.monotonic() + EVERY_S

    def read(self) -> dict[str, Any] | None:
        """Return what a worker before this one has left, if there was one."""
        return json.loads(self._path.read_text()) if self._path.exists() else None
