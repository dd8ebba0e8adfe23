"""Runs that the tests hurt; see `live_run.py`."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dev_shm import in_dev_shm, left_in_dev_shm
from live_run import LiveRun


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., LiveRun]]:
    """Start runs; afterwards none is alive, and /dev/shm and our descriptors are as before."""
    shm, descriptors = in_dev_shm(), len(os.listdir("/proc/self/fd"))
    runs: list[LiveRun] = []

    def start(*overrides: str, **how: Any) -> LiveRun:
        directory = tmp_path / str(len(runs))
        directory.mkdir()
        runs.append(LiveRun(directory, *overrides, **how))
        return runs[-1]

    yield start
    for run in runs:
        run.kill()
        if run.process.returncode != -signal.SIGKILL:  # the next save or resume cleans up after it
            leftovers = [p for p in run.logs.rglob("*") if ".tmp" in p.name]
            assert not leftovers
        run.out.close()
        run.err.close()
    assert left_in_dev_shm(shm) == set()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
