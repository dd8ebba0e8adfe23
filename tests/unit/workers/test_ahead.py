"""Workers that start before their learner has imported torch."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from isaac_hydra_ext.errors import IsaacHydraExtError
from isaac_hydra_ext.rollout import processes
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers import ahead
from isaac_hydra_ext.workers.launching import LocalLauncher
from isaac_hydra_ext.workers.sources import make_source

from ..builders import run_config

PENDULUM = ("env=gym_pendulum", "rollout.num_workers=1")


def composed(*typed: str) -> DictConfig:
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        return compose("train_appo", list(typed))


def waiting(*typed: str) -> int:
    """How many workers a command line has started, when the learner begins to import torch."""
    with ahead.workers_ahead(composed(*typed), typed):
        return sum(launcher.num_waiting for launcher in ahead._waiting)


@pytest.mark.parametrize(
    "typed",
    [
        ("env=gym_pendulum", "rollout.num_workers=0"),
        ("env=mjlab_cartpole_balance", "rollout.num_workers=1"),  # its worker describes the task
        (*PENDULUM, "experiment.devices=[cpu,cpu]"),
        (*PENDULUM, "env.imports=[json]"),
        (*PENDULUM, "env.id=Pendlum-v1"),  # and what else is wrong
        (*PENDULUM, "ppo.lr=-1"),
        ("env=gym_pendulum", "rollout.num_workers=1000000"),
    ],
)
def test_no_worker_where_there_is_something_to_ask_or_to_refuse(
    typed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalLauncher, "start_ahead", lambda *_: pytest.fail("started"))
    assert waiting(*typed) == 0


def test_workers_that_no_run_takes_are_ended() -> None:
    with (
        pytest.raises(IsaacHydraExtError, match="before it began"),
        ahead.workers_ahead(composed(*PENDULUM), PENDULUM),
    ):
        (launcher,) = ahead._waiting
        ((process, pipe),) = launcher._waiting.values()
        assert ahead.taken(run_config(rollout={"num_workers": 2})) is None, "another run's"
        raise IsaacHydraExtError("before it began")
    assert process.ended and pipe.closed and not ahead._waiting
    with pytest.raises(OSError):
        os.fstat(launcher.block.fd)


LEARNER = """
import time
from isaac_hydra_ext.workers.launching import spawn_worker
from isaac_hydra_ext.workers.shared_memory import make_shared_block

if __name__ == "__main__":
    process, pipe = spawn_worker(make_shared_block(), 0, 0, {})
    time.sleep(60)
"""


def test_a_worker_dies_with_a_learner_that_is_killed_while_it_imports(tmp_path: Path) -> None:
    # In torch's place something that takes as long as anybody likes.
    (tmp_path / "torch.py").write_text("import os, time\nprint(os.getpid())\ntime.sleep(60)\n")
    (tmp_path / "learner.py").write_text(LEARNER)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    learner = subprocess.Popen(
        [sys.executable, "-u", "learner.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert learner.stdout is not None
    worker = psutil.Process(int(learner.stdout.readline()))
    learner.kill()
    assert psutil.wait_procs([worker], timeout=10)[0] == [worker]
    learner.wait(10)


def test_what_they_have_taken_is_no_reason_to_refuse_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with ahead.workers_ahead(composed(*PENDULUM), PENDULUM):
        (launcher,) = ahead._waiting
        ((process, _),) = launcher._waiting.values()
        monkeypatch.setattr(processes, "available_memory", lambda: 0)
        make_source(run_config(rollout={"num_workers": 1}), StopSignals()).close()
    assert process.ended


PROGRAM = """
import sys
from isaac_hydra_ext.workers.launching import LocalLauncher

def start_ahead(self, config, before=LocalLauncher.start_ahead):
    print("torch" in sys.modules)
    before(self, config)
    started.extend(process.pid for process, _ in self._waiting.values())

started, LocalLauncher.start_ahead = [], start_ahead
from isaac_hydra_ext.cli.train import main
try:
    main()
finally:
    print("pids of those:", *started)
"""


def test_a_run_takes_the_workers_that_were_started_before_torch(tmp_path: Path) -> None:
    typed = [
        *PENDULUM, "rollout.envs_per_worker=2", "rollout.steps_per_env=8",
        "experiment.max_iterations=1", "logging.report=false", "policy.hidden_dims=[8]",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *typed],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0] == "False", done.stdout + done.stderr
    (pids,) = (line for line in lines if line.startswith("pids: "))
    assert pids.split("workers ")[1] == lines[-1].removeprefix("pids of those: ")


INTERRUPTED = """
import os, signal
from isaac_hydra_ext.workers.launching import LocalLauncher

def start_ahead(self, config, before=LocalLauncher.start_ahead):
    before(self, config)
    print(*(process.pid for process, _ in self._waiting.values()), flush=True)
    os.kill(os.getpid(), signal.SIGINT)

LocalLauncher.start_ahead = start_ahead
from isaac_hydra_ext.cli.train import main
main()
"""


def test_ctrl_c_while_they_wait_ends_the_command_and_them(tmp_path: Path) -> None:
    line = [sys.executable, "-c", INTERRUPTED, *PENDULUM, "experiment.max_iterations=1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    (pid,) = done.stdout.split()  # and nothing of a run
    assert done.returncode == 130 and not psutil.pid_exists(int(pid)), done.stdout + done.stderr
