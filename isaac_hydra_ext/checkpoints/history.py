"""`evaluations.jsonl` of a run: one line an evaluation, by which `best` is chosen.

Written in the learner's process; read wherever checkpoints are looked for. A file next to the
checkpoints, because an evaluation ends after the checkpoint of its iteration has been written.
"""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "evaluations.jsonl"


def append(run_dir: Path, result: Mapping[str, Any]) -> None:
    """Add an evaluation's line.

    Args:
        run_dir: Of the run.
        result: With `iteration` and `mean_return`.

    Raises:
        OSError: It cannot be written.
    """
    with (run_dir / FILE).open("a") as f:
        f.write(json.dumps(result) + "\n")


def evaluated_returns(run_dir: Path) -> dict[int, float]:
    """Return the mean return of each iteration that was evaluated; an empty dict without the file.

    Invalid lines, e.g. one whose writing was cut short, are skipped.
    """
    try:
        lines = (run_dir / FILE).read_text(errors="replace").splitlines()
    except OSError:
        return {}
    returns: dict[int, float] = {}
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError, OverflowError):
            entry = json.loads(line)
            value = float(entry["mean_return"])
            if type(entry["iteration"]) is int and math.isfinite(value):
                returns[entry["iteration"]] = value
    return returns
