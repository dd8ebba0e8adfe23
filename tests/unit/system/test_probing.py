"""Looking at what may hang or crash, from a process that must do neither."""

import contextlib
import time
from pathlib import Path

import psutil
import pytest

from isaac_hydra_ext.system.probing import ProbeError, probe


def test_what_hangs_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    note = tmp_path / "child"
    code = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(ProbeError, match="no answer within 10 s"):
        probe(code, timeout_s=10.0)
    deadline = time.monotonic() + 60
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(int(note.read_text())).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "ended without a word"),
    ],
)
def test_a_probe_says_what_happened(code: str, says: str) -> None:
    with pytest.raises(ProbeError, match=says):
        probe(code)


def test_a_probe_answers_whatever_else_is_printed() -> None:
    assert probe("print('Kit says hello'); print('[1, 2]')") == [1, 2]
