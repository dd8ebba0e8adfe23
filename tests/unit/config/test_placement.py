"""Who simulates where, on machines of no, one and several GPUs."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from registration import register_package

from isaac_hydra_ext.config.placement import learner_device, worker_environment
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.isaac import adapter as isaac_lab
from isaac_hydra_ext.envs.isaac.cfg import TaskConfigs
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.system import limits
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.pool import WorkerPool

from ..machines import SLICE, V2, Machine

ISAAC = {"env": {"kind": "isaaclab", "task": "Isaac-Ant-v0"}}
Gpus = Callable[[int], None]
SEEING = """
import os
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import TaskDescription
from isaac_hydra_ext.envs.gym import GymVecEnv


def describe(env_config, device):
    seen = {"device": device, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
    return TaskDescription(2, {}, seen)


def make(env_config, *, num_envs, device, seed, worker, run_dir):
    seen = f"{device} of {os.environ.get('CUDA_VISIBLE_DEVICES')}"
    (run_dir / f"seen{worker}").write_text(seen)
    return GymVecEnv(EnvConfig(id="Pendulum-v1"), num_envs)
"""


@pytest.fixture(autouse=True)
def six_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of six cores and no GPU, in a control group without a limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(limits, "ROOT", tmp_path / "root")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Machine(tmp_path / "root", f"0::/{SLICE}", V2.format("/"))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Have PyTorch see so many GPUs; returns a function that says how many."""
    return lambda count: monkeypatch.setattr("torch.cuda.device_count", lambda: count)


def placed(*typed: str) -> RunConfig:
    cfg: dict[str, Any] = {"env": {**ISAAC["env"]}}
    for token in typed:
        key, _, value = token.partition("=")
        section, name = key.split(".")
        plain = value[1:-1].split(",") if value.startswith("[") else value
        cfg.setdefault(section, {})[name] = int(value) if value.isdigit() else plain
    return load_run_config(cfg, typed)


@pytest.mark.parametrize(
    ("count", "typed", "workers", "device", "learner"),
    [
        # Isaac Lab's own device is a GPU.
        (0, [], 5, "auto", "cpu"),
        (1, [], 0, "auto", "cuda:0"),
        (2, [], 1, "auto", "cuda:0"),
        (4, [], 3, "auto", "cuda:0"),
        (4, ["rollout.device=cpu"], 5, "cpu", "cuda:0"),
        # Said: all that the learner leaves, some by name, or as many as there are workers.
        (1, ["rollout.device=cuda"], 0, "cuda:0", "cuda:0"),
        (4, ["rollout.device=cuda"], 3, "cuda:1,cuda:2,cuda:3", "cuda:0"),
        (4, ["rollout.device=cuda", "rollout.num_workers=2"], 2, "cuda:1,cuda:2", "cuda:0"),
        (4, ["rollout.device=cuda", "experiment.device=cuda:2"], 3, "cuda:0,cuda:1,cuda:3",
         "cuda:2"),
        (4, ["rollout.device=cuda", "experiment.device=cpu"], 4, "cuda:0,cuda:1,cuda:2,cuda:3",
         "cpu"),
        (4, ["rollout.device=[cuda:3,cuda:1]"], 2, "cuda:3,cuda:1", "cuda:0"),
        # The learner gives way.
        (2, ["rollout.device=cuda:0"], 1, "cuda:0", "cuda:1"),
        (3, ["rollout.device=[cuda:0,cuda:1]"], 2, "cuda:0,cuda:1", "cuda:2"),
        # In the learner's process: on the learner's GPU.
        (2, ["rollout.device=cuda:1", "experiment.device=cuda:1"], 0, "cuda:1", "cuda:1"),
        (2, ["rollout.device=cuda:1", "rollout.num_workers=0"], 0, "cuda:1", "cuda:1"),
        (2, ["rollout.device=cuda", "rollout.num_workers=0"], 0, "cuda:0", "cuda:0"),
        (1, ["rollout.device=cuda:0", "experiment.device=cpu"], 0, "cuda:0", "cpu"),
        (2, ["experiment.device=cuda"], 1, "auto", "cuda:0"),
        # One worker and the learner would share a GPU.
        (1, ["rollout.num_workers=1", "rollout.device=cuda:0"], 0, "cuda:0", "cuda:0"),
        (2, ["rollout.device=cuda:1", "experiment.device=cuda:1", "rollout.num_workers=1"], 0,
         "cuda:1", "cuda:1"),
        (1, ["rollout.num_workers=1", "rollout.device=cuda:0", "experiment.device=cpu"], 1,
         "cuda:0", "cpu"),
        (1, ["rollout.num_workers=1"], 0, "auto", "cuda:0"),
        (1, ["rollout.num_workers=1", "experiment.device=cuda:0"], 0, "auto", "cuda:0"),
        (1, ["rollout.num_workers=1", "experiment.device=cpu"], 1, "auto", "cpu"),
        (2, ["rollout.num_workers=1", "experiment.device=cuda:0"], 1, "auto", "cuda:0"),
    ],
)  # fmt: skip
def test_every_gpu_has_one_process(
    gpus: Gpus,
    count: int,
    typed: list[str],
    workers: int,
    device: str,
    learner: str,
) -> None:
    gpus(count)
    config = placed(*typed)
    assert (config.num_workers, config.rollout.device) == (workers, device)
    assert learner_device(config) == learner


@pytest.mark.parametrize(
    ("count", "typed", "says"),
    [
        (2, ["rollout.device=[cuda:0,cuda:1]"], "leaves no GPU for the learner"),
        (2, ["rollout.device=[cuda:1,cuda:1]"], "names a GPU twice"),
        (2, ["rollout.device=[cuda:1,cpu]"], "several are named as cuda:N"),
        (2, ["rollout.device=[cuda:1,cuda:2]"], "rollout.device=cuda:2: PyTorch sees 2 CUDA"),
        (4, ["rollout.device=cuda:1", "rollout.num_workers=2"], "rollout.num_workers=2: "
         "rollout.device=cuda:1 names 1 GPU, and each has one worker"),
        (4, ["rollout.device=cuda", "rollout.num_workers=4"], "of which there are 3"),
        (2, ["rollout.device=[cuda:0,cuda:1]", "experiment.device=cuda:1"],
         "experiment.device=cuda:1: simulates already"),
        (0, ["rollout.device=cuda"], "rollout.device=cuda: PyTorch sees 0 CUDA devices"),
    ],
)  # fmt: skip
def test_what_would_take_turns_is_refused(
    gpus: Gpus, count: int, typed: list[str], says: str
) -> None:
    gpus(count)
    with pytest.raises(ConfigError) as raised:
        placed(*typed)
    assert says in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("quota", "workers"),
    [("max", 5), ("99900000", 5), ("450000", 3), ("250000", 1), ("100000", 1), ("50000", 1)],
)
def test_auto_counts_the_cores_that_the_control_group_pays_for(
    six_cores: Machine, quota: str, workers: int
) -> None:
    six_cores.v2("user.slice", cpu=f"{quota} 100000")  # above the process's own group
    assert placed("env.kind=gym", "env.id=Pendulum-v1").num_workers == workers
    assert placed("rollout.device=cpu").num_workers == workers


def test_what_the_task_says_of_its_device_fits_the_workers_that_run(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for own, asked, told in (("cuda:0", "auto", "cuda"), ("cpu", "auto", "cpu")):
        gpus(3)
        env = SimpleNamespace(sim=SimpleNamespace(device=own), scene=SimpleNamespace(num_envs=4096))
        task = TaskConfigs("Isaac-Ant-v0", env, None, None, [])
        monkeypatch.setattr(isaac_lab, "open_task", lambda *_, task=task, **__: task)
        first = placed()
        settings = isaac_lab.describe(first.env, asked).settings
        assert settings["rollout"]["device"] == told
        second = load_run_config(ISAAC, (), settings, first.num_workers)
        assert second.num_workers == first.num_workers == 2
        complete(second, 4096, ())
        assert second.rollout.envs_per_worker == 2048
        assert second.rollout.device == ("cuda:1,cuda:2" if told == "cuda" else "cpu")
        gpus(1)
        typed = ["rollout.num_workers=1"]
        assert placed(*typed).num_workers == 0
        second = load_run_config({**ISAAC, "rollout": {"num_workers": 1}}, typed, settings, 0)
        assert second.num_workers == 0, "its env is in the learner's process already"
        assert second.rollout.device == ("cuda:0" if told == "cuda" else "cpu")


def test_a_worker_that_runs_already_is_not_made_none(gpus: Gpus) -> None:
    gpus(2)
    cfg = {**ISAAC, "experiment": {"device": "cuda:0"}}
    with pytest.raises(ConfigError, match="experiment.device=cuda:0: simulates already"):
        load_run_config(cfg, (), {"rollout": {"device": "cuda:0"}}, 1)


def test_a_worker_sees_its_own_gpu_only(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(3)
    named, unnamed = placed("rollout.device=[cuda:2,cuda:1]"), placed()
    shown = [worker_environment(named, w, True) for w in range(2)]
    assert shown == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    shown = [worker_environment(unnamed, w, True) for w in range(2)]
    assert shown == [{"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "2"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-b2f,7")  # ours are numbered within these
    shown = [worker_environment(named, w, True) for w in range(2)]
    assert shown == [{"CUDA_VISIBLE_DEVICES": "7"}, {"CUDA_VISIBLE_DEVICES": "GPU-b2f"}]
    assert worker_environment(placed("rollout.device=cpu"), 0, True) == {}


def test_processes_get_their_gpu_and_are_told_its_name_there(
    gpus: Gpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two real workers, whose env writes down what it was given."""
    site = tmp_path / "site"
    register_package(site, "seeing", "[isaac_hydra_ext.envs]\nseeing = seeing\n")
    (site / "seeing.py").write_text(SEEING)
    monkeypatch.syspath_prepend(str(site))
    gpus(3)
    config = placed("env.kind=seeing", "rollout.device=[cuda:2,cuda:1]")
    pool = WorkerPool(config, StopSignals())
    try:
        assert pool.describe().env_config == {"device": "cuda:0", "visible": "2"}
        complete(config, 2, ())
        pool.build(config, tmp_path, None, 0)
        seen = [(tmp_path / f"seen{worker}").read_text() for worker in range(2)]
        assert seen == ["cuda:0 of 2", "cuda:0 of 1"]
        assert config.rollout.device == "cuda:2,cuda:1"
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    finally:
        pool.close()
