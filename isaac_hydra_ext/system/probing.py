"""Looking at something that may crash or hang, from a process that must do neither.

Used by commands around a run. Imports the standard library alone.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

PROBE_TIMEOUT_S = 180.0  # mjlab's first import on a busy machine takes 30


class ProbeError(Exception):
    """A process that looked at something crashed, hung, or raised; the text says which."""


def probe(code: str, timeout_s: float = PROBE_TIMEOUT_S) -> Any:
    """Run Python code in a process of its own and return the JSON that it prints last.

    Raises:
        ProbeError: It crashed, hung, or raised; whatever it has started is killed.
    """
    # The output goes to files: a grandchild that keeps a pipe open could be waited for for ever.
    status, out, err = run_bounded([sys.executable, "-c", code], timeout_s)
    if status is None:
        raise ProbeError(f"no answer within {timeout_s:g} s")
    if status < 0:
        raise ProbeError(f"crashed with {signal.Signals(-status).name}")
    lines = [line.strip() for line in (out if status == 0 else err).splitlines() if line.strip()]
    if status:
        raise ProbeError(lines[-1][:300] if lines else f"exit code {status}")
    try:
        return json.loads(lines[-1])
    except (ValueError, IndexError) as e:
        raise ProbeError("ended without a word") from e


def run_bounded(command: Sequence[str], timeout_s: float) -> tuple[int | None, str, str]:
    """Run a command in a session of its own; returns exit code, stdout and stderr.

    The code is None, and the whole session killed, when it takes longer than `timeout_s`.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so it is still there
            process.wait(5.0)
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(errors="replace"), err.read().decode(errors="replace")
