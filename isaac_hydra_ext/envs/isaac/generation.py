"""Which generation of Isaac Lab is installed. Runs in any process.

Imports none of it, nor torch.
"""

import importlib.util
import sys
from enum import Enum
from pathlib import Path

from isaac_hydra_ext.errors import MissingDependencyError


class Generation(Enum):
    """Isaac Lab's generations, by how a simulation is started and configured."""

    V2 = "2.x"
    BETA = "3.0 beta"
    GA = "3.0"


def detect_generation() -> Generation:
    """Tell the installed generation by its files, without importing any of it.

    Raises:
        MissingDependencyError: There is no Isaac Lab, or one older than 2.0.
    """
    root, tasks = _package_dir("isaaclab"), _package_dir("isaaclab_tasks")
    if root is None or tasks is None:
        if _package_dir("omni.isaac.lab") is not None:
            raise MissingDependencyError(
                "env.kind=isaaclab: Isaac Lab 1.x is installed; 2.0 or newer is needed"
            )
        missing = "isaaclab" if root is None else "isaaclab_tasks"
        if root is not None and (root / "source" / "isaaclab_tasks").exists():
            raise MissingDependencyError(
                f"env.kind=isaaclab: {root} is PyPI's package, which hides Isaac Lab's modules "
                "from Python's import; a checkout of Isaac Lab or its container is needed"
            )
        raise MissingDependencyError(
            f"env.kind=isaaclab: {missing} cannot be imported by {sys.executable}; run with Isaac "
            "Lab's own Python (./isaaclab.sh -p -m isaac_hydra_ext.appo_runner ...)"
        )
    if (root / "app" / "sim_launcher.py").exists():
        return Generation.GA
    if (tasks / "utils" / "sim_launcher.py").exists():
        return Generation.BETA
    return Generation.V2


def _package_dir(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent package is missing
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
