"""A save that ends at any point leaves the checkpoint before it, and nothing that stays."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import HANG_S, LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint, remove_leftovers
from isaac_hydra_ext.checkpoints.find import find_checkpoint, list_checkpoints

Live = Callable[..., LiveRun]

# One process forks a child for each point; the child saves, and is killed there.
KILLED_SAVES = """
import os, signal, sys
from pathlib import Path
import torch
from isaac_hydra_ext.checkpoints import file as checkpoint

root, tests = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, tests)
from unit.checkpoint_samples import meta, write

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def half_written(self, mode):
    file = plain_open(self, mode)
    if "w" in mode:
        whole = file.write
        class Half:
            def __getattr__(self, name): return getattr(file, name)
            def __enter__(self): return self
            def __exit__(self, *args): file.close()
            def write(self, data): whole(data[: len(data) // 2]); file.flush(); die()
        return Half()
    return file

plain_open, plain_replace = Path.open, Path.replace
def renamed(self, target):
    plain_replace(self, target)
    die()

points = {
    "before": lambda: setattr(checkpoint, "remove_leftovers", die),
    "during": lambda: setattr(Path, "open", half_written),
    "written": lambda: setattr(os, "fsync", die),
    "verified": lambda: setattr(Path, "replace", die),
    "renamed": lambda: setattr(Path, "replace", renamed),
}
for name, prepare in points.items():
    directory = root / name / "checkpoints"
    write(directory, 10, 1.0)
    pid = os.fork()
    if pid == 0:
        prepare()
        checkpoint.save_checkpoint(directory, 20, {"w": torch.ones(2)}, meta(20))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (name, status)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, tests = tmp_path_factory.mktemp("killed"), Path(__file__).parents[1]
    line = [sys.executable, "-c", KILLED_SAVES, str(root), str(tests)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("point", ["before", "during", "written", "verified", "renamed"])
def test_a_killed_save_leaves_the_one_before_it(killed: Path, point: str) -> None:
    run = killed / point
    directory = run / "checkpoints"
    hidden = [p for p in directory.iterdir() if p.name.startswith(".")]
    assert len(hidden) == (point in ("during", "written", "verified"))
    found, notes, _ = find_checkpoint(str(run), killed)
    assert found.meta["iteration"] == (20 if point == "renamed" else 10)
    assert notes == []
    # Looking for something to go on from has cleaned up.
    assert set(directory.iterdir()) == set(list_checkpoints(directory))


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / ".model_3.safetensors.123.tmp"
    with path.open("wb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        remove_leftovers(tmp_path)
        assert path.exists()
    remove_leftovers(tmp_path)
    assert not path.exists()
    remove_leftovers(tmp_path / "nowhere")


# ---------------------------------------------------------------- the disk is full

# Every file of the run ends at 100 kB (as on a full disk, write fails with an OSError); a
# checkpoint of these networks is larger.
SMALL_DISK = 100_000
LARGE = ("rollout.num_workers=0", "policy.hidden_dims=[256,256]", "checkpoint.every=1")


def limit_file_size(run: LiveRun) -> None:
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (SMALL_DISK, SMALL_DISK))


@pytest.mark.parametrize("policy", ["warn", "stop"])
def test_a_full_disk_leaves_old_checkpoints_and_obeys_the_policy(live: Live, policy: str) -> None:
    run = live(
        *(*LARGE, "experiment.max_iterations=100000", f"checkpoint.on_error={policy}"),
        "checkpoint.keep_last=2",
    )
    run.wait_for_iteration(3)
    limit_file_size(run)
    if policy == "stop":
        assert run.finish() == 1, run.text()
        (line,) = run.text()[1].strip().splitlines()
    else:
        n = len(run.text()[0].splitlines())
        run.wait_for_iteration(int(run.summary()["iterations"]) + 30)
        assert len(run.text()[0].splitlines()) > n
        run.process.send_signal(signal.SIGINT)
        assert run.finish() not in (0, 130), run.text()  # what was to be saved is not
        line = run.text()[1].strip().splitlines()[0]
    assert "cannot write" in line and os.strerror(errno.EFBIG) in line
    assert "earlier checkpoints are intact" in line
    kept = [p for p in run.checkpoints() if p.name.startswith("model_")]
    assert len(kept) >= 2
    for path in kept:
        load_checkpoint(path)
