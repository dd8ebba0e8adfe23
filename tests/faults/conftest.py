"""Runs that the tests hurt; see `live_run.py`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_run import LiveRun


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., LiveRun]]:
    """Start runs; afterwards none of them is alive and /dev/shm is as before."""
    shm = set(os.listdir("/dev/shm"))
    runs: list[LiveRun] = []

    def start(*overrides: str) -> LiveRun:
        directory = tmp_path / str(len(runs))
        directory.mkdir()
        runs.append(LiveRun(directory, *overrides))
        return runs[-1]

    yield start
    for run in runs:
        run.kill()
        leftovers = [p for p in run.logs.rglob("*") if ".tmp" in p.name]
        assert not leftovers
    assert set(os.listdir("/dev/shm")) <= shm
