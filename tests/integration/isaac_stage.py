"""Puts an Isaac Lab on the stage: a stand-in of one generation, or the real one."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).resolve().parent.parent / "isaac_standin"
LAYERS = {
    "v2": ("common", "v2"),
    "ga": ("common", "ga"),
}
REAL = pytest.param("real", marks=pytest.mark.isaaclab)
HOW_TO_IMPORT = "no Isaac Lab can be imported: scripts/test_isaac_lab.sh has one"


def stage(generation: str, where: Path) -> dict[str, str]:
    """Return the environment variables in which `generation` can be imported."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if generation == "real":
        if importlib.util.find_spec("isaaclab") is None:
            pytest.skip(HOW_TO_IMPORT)
        return env
    root = where / f"isaac_{generation}"
    for layer in LAYERS[generation]:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(STANDIN / layer, root, dirs_exist_ok=True, ignore=ignored)
    parts = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    # What fails to start leaves its output among the temporary files.
    return {**env, "PYTHONPATH": os.pathsep.join(parts), "TMPDIR": str(where)}


def physics(generation: str) -> str | None:
    """Return the physics preset that needs no Kit, where there are presets."""
    return None if generation == "v2" else "newton_mjwarp"


def run_python(
    arguments: list[str], env: dict[str, str], cwd: Path, timeout: float = 400, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """Run this Python to its end."""
    line = [sys.executable, *arguments]
    return subprocess.run(
        line, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, **kwargs
    )


def report(checks: Mapping[str, Callable[[], None]], file: str) -> None:
    """Make all checks in this process, print what each found, and end it."""
    found = {}
    for name, function in checks.items():
        try:
            function()
            found[name] = ""
        except BaseException as e:  # whatever it is, the test of this name fails with it
            found[name] = f"{type(e).__name__} at line {_line(e, file)}: {e}"
    print("\n" + json.dumps(found), flush=True)
    os._exit(0)  # Kit may not let go


def _line(error: BaseException, file: str) -> int:
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def read_report(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return what `report` printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
