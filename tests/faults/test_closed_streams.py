"""A terminal that is not there: closed streams, and a disk that is full behind one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from live_run import HANG_S, LONG

RUN = [
    "-m", "isaac_hydra_ext.appo_runner", *LONG, "experiment.max_iterations=3",
    "experiment.output_dir=logs",
]  # fmt: skip


def shell(where: Path, arguments: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    line = f"exec {sys.executable} {' '.join(arguments)} {redirection}"
    return subprocess.run(
        ["bash", "-c", line], cwd=where, capture_output=True, text=True, timeout=HANG_S
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_without_streams_trains_and_its_memory_is_nobody_elses(
    tmp_path: Path, closed: str
) -> None:
    done = shell(tmp_path, RUN, closed)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    (path,) = tmp_path.glob("logs/*/*/summary.json")
    assert json.loads(path.read_text())["status"] == "completed"
    assert json.loads(path.read_text())["worker_restarts"] == 0


@pytest.mark.parametrize("command", ["", "list", "list --keyword go1", "--version", "train --help"])
def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path, command: str) -> None:
    start = ["-c", "'from isaac_hydra_ext.command_line import main; main()'"]
    done = shell(tmp_path, [*start, command], "> /dev/full")
    assert (done.returncode, done.stderr) == (
        1, "error: stdout: No space left on device\n"
    )  # fmt: skip
    done = shell(tmp_path, [*start, command], ">&-")
    assert (done.returncode, done.stderr) == (0, "")
