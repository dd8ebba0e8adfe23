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
    GA = "3.0"


def detect_generation() -> Generation:
    """Tell the installed generation by its files, without importing any of it.

    Raises:
        MissingDependencyError: There is no Isaac Lab, one older than 2.0, or a beta of 3.0.
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
            "Lab's own Python (./isaaclab.sh -p -m isaac_hydra_ext.appo_runner ...), or let "
            "scripts/run_isaac_lab.sh install 3.0.0, which needs Python 3.12"
        )
    if (root / "app" / "sim_launcher.py").exists():
        return Generation.GA
    if (tasks / "utils" / "sim_launcher.py").exists():
        raise MissingDependencyError(
            "env.kind=isaaclab: a beta of Isaac Lab 3.0 is installed; 3.0.0 or newer is needed "
            "(scripts/run_isaac_lab.sh)"
        )
    return Generation.V2


def has_kit() -> bool:
    """Return whether Kit may be started here: 2.x always does, 3.0 where Isaac Sim is installed."""
    try:
        return detect_generation() is Generation.V2 or _package_dir("isaacsim") is not None
    except MissingDependencyError:
        return True  # what simulates is elsewhere, and not known


def _package_dir(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent package is missing
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
