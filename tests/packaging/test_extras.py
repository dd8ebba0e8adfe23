"""The extras go together. Asks the registry, installs nothing."""

import json
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 120  # where two extras contradict each other, pip may search for half an hour


def test_all_extras_go_together_and_leave_a_containers_packages_alone(
    archives: Any, tmp_path: Path
) -> None:
    """If all of them go together, each pair does."""
    with zipfile.ZipFile(archives.wheel) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    extras = set(metadata.get_all("Provides-Extra") or [])
    if sys.version_info[:2] == (3, 12):  # elsewhere it brings nothing
        extras.remove("isaaclab")  # it wants another MuJoCo than mjlab
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "-q", "--retries", "1",
         "--report", report, f"{archives.wheel}[{','.join(sorted(extras))}]"],
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    if "connection broken by" in done.stderr or "No module named pip" in done.stderr:
        pytest.skip(f"no registry, or no pip: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    changed = {part["metadata"]["name"] for part in json.loads(report.read_text())["install"]}
    assert "isaac-hydra-ext" in changed
    assert not changed & {"torch", "numpy", "gymnasium", "hydra-core"}
