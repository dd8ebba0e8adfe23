"""A terminal that is not there: closed streams, and a disk that is full behind one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_run import HANG_S, LONG

RUN = [
    "-m", "isaac_hydra_ext.appo_runner", *LONG, "experiment.max_iterations=3",
    "experiment.output_dir=logs", "rollout.num_workers=1",
]  # fmt: skip


def shell(
    where: Path, arguments: list[str], redirection: str, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    line = f"exec {sys.executable} {' '.join(arguments)} {redirection}"
    return subprocess.run(
        ["bash", "-c", line], cwd=where, capture_output=True, text=True, timeout=HANG_S,
        env={**os.environ, **(more or {})},
    )  # fmt: skip


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
    start = ["-c", "'from isaac_hydra_ext.cli.main import main; main()'"]
    done = shell(tmp_path, [*start, command], "> /dev/full")
    assert (done.returncode, done.stderr) == (
        1, "error: stdout: No space left on device\n"
    )  # fmt: skip
    done = shell(tmp_path, [*start, command], ">&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_keeps_its_code_where_stderr_is_full(tmp_path: Path) -> None:
    done = shell(tmp_path, [*RUN, "ppo.lr=-1"], "2> /dev/full")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_full_stderr_does_not_silence_stdout(tmp_path: Path) -> None:
    code = (
        'from isaac_hydra_ext.terminal.console import RunConsole; it = RunConsole("plain"); '
        'it.say("one"); it.warn("two"); it.say("three")'
    )
    done = shell(tmp_path, ["-c", f"'{code}'"], "2> /dev/full")
    assert (done.returncode, done.stdout) == (0, "one\nthree\n")


def test_what_an_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "ü").mkdir()
    start = ["-X", "utf8=0", *RUN]
    done = shell(tmp_path / "ü", start, "", {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "\\xfc" in done.stdout
