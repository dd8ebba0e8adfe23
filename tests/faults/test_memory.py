"""Shared memory, descriptors and processes: what a run takes, and that two do not meet."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from how_long import here
from live_run import HANG_S, LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]
LIGHT = ("ppo.update_epochs=1", "ppo.num_mini_batches=1", "policy.hidden_dims=[8]")
MIB = 2**20


# ---------------------------------------------------------------- descriptors


def held(processes: list[psutil.Process]) -> list[int]:
    """Descriptors that stay open: a checkpoint being written holds one more for a moment."""
    samples = []
    for _ in range(10):
        samples.append([p.num_fds() for p in processes])
        time.sleep(0.01)
    return [min(column) for column in zip(*samples, strict=True)]


def test_rollouts_need_no_more_than_256_descriptors(live: Live) -> None:
    iterations = here(150, 500)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))  # the run inherits it
    try:
        run = live(*LIGHT, f"experiment.max_iterations={iterations}", "rollout.envs_per_worker=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    run.wait_for_iteration(20)
    assert run.ps.rlimit(psutil.RLIMIT_NOFILE)[0] == 256
    processes = [run.ps, *run.workers()]
    before = held(processes)
    run.wait_for_iteration(iterations - 50)
    assert held(processes) == before
    assert max(before) < 64
    assert run.finish() == 0, run.text()
    assert run.summary()["samples_consumed"] == iterations * 2 * 16


# ---------------------------------------------------------------- /dev/shm

TINY_SHM = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec"
MIBS = (  # more than 1 MiB of each worker
    "rollout.steps_per_env=12000",
    "rollout.envs_per_worker=4",
    "rollout.num_workers=2",
)


def with_tiny_shm(directory: Path, *program: str) -> subprocess.CompletedProcess[str]:
    """Run to the end in a mount namespace whose /dev/shm has 1 MiB."""
    private = ["unshare", "--mount", "sh", "-c", f'{TINY_SHM} "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"]).returncode:
        pytest.skip("may not mount a /dev/shm of its own")
    line = [*private, sys.executable, *program, f"experiment.output_dir={directory}/logs"]
    line += [*LIGHT, *MIBS, "experiment.max_iterations=1"]
    return subprocess.run(line, cwd=directory, capture_output=True, text=True, timeout=HANG_S)


def test_a_run_of_megabytes_works_in_a_dev_shm_of_1_mib(tmp_path: Path) -> None:
    done = with_tiny_shm(tmp_path, "-m", "isaac_hydra_ext.appo_runner")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("logs/*/*/summary.json")
    assert json.loads(path.read_text())["samples_consumed"] == 2 * 4 * 12000


FALLBACK = """
import sys
from isaac_hydra_ext.workers import shared_memory
from isaac_hydra_ext.workers import pool as worker_pool

# As where there is no memfd.
shared_memory.make_shared_block = worker_pool.make_shared_block = shared_memory.NamedBlock
if __name__ == "__main__":
    from isaac_hydra_ext.cli.train import main
    main()
"""


def test_the_fallback_says_what_it_needs_and_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "fallback.py").write_text(FALLBACK)
    done = with_tiny_shm(tmp_path, "fallback.py")
    assert done.returncode == 1, (done.stdout, done.stderr)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: /dev/shm: the rollout buffer needs ")
    assert "available are 1.0 MiB" in line and "--shm-size" in line


def test_more_memory_than_there_is_is_refused_with_the_sizes_and_the_knobs(live: Live) -> None:
    sizes = ("rollout.steps_per_env=1000000", "rollout.envs_per_worker=64")
    run = live(*sizes, "rollout.max_policy_lag=100")
    assert run.finish() == 1
    line = run.text()[1].strip()
    assert line.startswith("error: the rollouts need ") and "GiB, available are" in line
    assert "W = 2, B = 64, T = 1000000, L = 100" in line
    assert "rollout.steps_per_env" in line
    assert not [*run.logs.glob("*/*")], "no directory of a run that did not start"


def test_workers_that_take_more_descriptors_than_allowed_are_told_in_one_line(live: Live) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, limits[1]))  # the run inherits it
    try:
        run = live("rollout.num_workers=30")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert run.finish() == 1
    line = run.text()[1].strip()
    assert "cannot start a process: [Errno 24] Too many open files; lower rollout.num_wo" in line
    assert len(line.splitlines()) == 1


SMALL_DISK = (
    "mkdir logs && mount -t tmpfs -o size=200k tmpfs logs && "
    '"$@"; code=$?; find logs >&2; exit $code'
)


def test_a_disk_that_fills_up_ends_the_curve_and_then_the_run(tmp_path: Path) -> None:
    private = ["unshare", "--mount", "sh", "-c", SMALL_DISK, "sh"]
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("may not mount a disk of its own")
    line = [*private, sys.executable, "-m", "isaac_hydra_ext.appo_runner", *LIGHT]
    line += [f"experiment.output_dir={tmp_path}/logs", "logging.console=plain"]
    line += ["checkpoint.every=5", "checkpoint.keep_last=100"]
    line += ["experiment.max_iterations=60", "rollout.num_workers=1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "iteration 60/60" in done.stdout, "it learned to the end"
    assert "TensorBoard: " in done.stderr and "the run goes on without it" in done.stderr
    assert "the run goes on (checkpoint.on_error=warn)" in done.stderr
    assert "error: cannot write" in done.stderr
    assert "model_5.safetensors" in done.stderr, "what fitted is still there"
    assert ".tmp" not in done.stderr.split("error: ")[1]


# ---------------------------------------------------------------- two runs


def test_two_runs_of_one_second_share_no_directory_and_both_complete(tmp_path: Path) -> None:
    # The clock is stopped, so that they surely want the same name.
    (tmp_path / "stopped.py").write_text(
        "from datetime import datetime\n"
        "from isaac_hydra_ext.run import directory as run_dir\n"
        "from isaac_hydra_ext.cli.train import main\n"
        "class Stopped(datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return cls(2030, 1, 2, 3, 4, 5)\n"
        "if __name__ == '__main__':\n"
        "    run_dir.datetime = Stopped\n"
        "    main()\n"
    )
    line = [sys.executable, "stopped.py", "experiment.output_dir=logs", *LIGHT]
    line += ["rollout.num_workers=1", "experiment.max_iterations=3", "experiment.name=same"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([*line, f"experiment.seed={seed}"], cwd=tmp_path, **pipes)
        for seed in (1, 2)
    ]
    for process in both:
        _, error = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, error
    directories = sorted((tmp_path / "logs/same").iterdir())
    assert [d.name for d in directories] == ["2030-01-02_03-04-05", "2030-01-02_03-04-05-1"]
    seeds = set()
    for directory in directories:
        assert json.loads((directory / "summary.json").read_text())["status"] == "completed"
        (path,) = (directory / "checkpoints").iterdir()
        seeds.add(load_checkpoint(path).meta["config"]["experiment"]["seed"])
        assert len(list(directory.glob("events.*"))) == 1
    assert seeds == {1, 2}


# ---------------------------------------------------------------- the start method

START = """
import multiprocessing, sys

if __name__ == "__main__":
    if sys.argv.pop(1) == "fork":
        multiprocessing.set_start_method("fork")
    from isaac_hydra_ext.cli.train import main
    try:
        main()
    finally:
        print("SIMULATORS", [m for m in sys.modules if m.startswith(("mjlab", "isaac", "mujoco"))
                             and not m.startswith("isaac_hydra_ext")])
"""


@pytest.mark.release
def test_a_global_start_method_of_fork_changes_nothing_and_no_simulator_is_imported(
    tmp_path: Path,
) -> None:
    (tmp_path / "start.py").write_text(START)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running, digests = {}, set()
    for method in ("default", "fork"):
        line = [sys.executable, "start.py", method, "env=gym_pendulum", *LIGHT]
        line += [f"experiment.output_dir={method}", "rollout.num_workers=1"]
        line += ["rollout.deterministic=true", "experiment.max_iterations=3"]
        running[method] = subprocess.Popen(line, cwd=tmp_path, **pipes)
    for method, process in running.items():
        out, error = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, error
        assert "SIMULATORS []" in out
        (path,) = (tmp_path / method).glob("*/*/checkpoints/*")
        tensors = load_checkpoint(path).tensors
        parts = [tensors[name].reshape(-1).numpy().tobytes() for name in sorted(tensors)]
        digests.add(hashlib.sha256(b"".join(parts)).hexdigest())
    assert len(digests) == 1


# ---------------------------------------------------------------- unequal speeds


def test_a_slow_learner_makes_workers_wait_and_takes_no_more_memory(live: Live) -> None:
    run = live("experiment.max_iterations=12", "ppo.update_epochs=30", "ppo.num_mini_batches=8")
    run.wait_for_iteration(3)
    processes = [run.ps, *run.workers()]
    before = [p.memory_info().rss for p in processes]
    steps = [p.cpu_times().user for p in processes]
    run.wait_for_iteration(10)
    after = [p.memory_info().rss for p in processes]
    assert all(b - a < 20 * MIB for a, b in zip(before, after, strict=True)), (before, after)
    learner, *workers = (p.cpu_times().user - s for p, s in zip(processes, steps, strict=True))
    assert max(workers) < learner, "they wait, and do not simulate on"
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert summary["workers_wait_s"] > summary["learner_idle_s"]
    assert summary["samples_produced"] == summary["samples_consumed"] == 12 * 2 * 4 * 16
    assert summary["policy_lag_mean"] <= 1


def test_a_slow_worker_holds_nothing_up_for_good_and_both_workers_are_learned_from(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uneven_env.py").write_text(
        "import multiprocessing, time\n"
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "class Uneven(PendulumEnv):\n"
        "    def step(self, action):\n"
        "        obs, _, *rest = super().step(action)\n"
        "        worker = int(multiprocessing.current_process().name[-1])\n"
        "        time.sleep(0.004 * worker)\n"
        "        return obs, 2.0 * worker - 1.0, *rest\n"
        "gymnasium.register('Uneven-v0', Uneven, max_episode_steps=16)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    uneven = ("env=gym_any", "env.id=Uneven-v0", "env.imports=[uneven_env]", *LIGHT)
    # Whole episodes a rollout, worth -16 from the fast worker and +16 from the slow one.
    run = live(*uneven, "experiment.max_iterations=10", "rollout.init_at_random_ep_len=false")
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert summary["samples_produced"] == summary["samples_consumed"] == 10 * 2 * 4 * 16
    assert summary["worker_restarts"] == summary["samples_abandoned"] == 0
    assert summary["mean_return"] == 0.0, "as many episodes from the one as from the other"
    assert summary["mean_episode_length"] == 16
