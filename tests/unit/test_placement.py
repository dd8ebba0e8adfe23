"""Who simulates where, on machines of no, one and several GPUs."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from isaac_hydra_ext.config.placement import available_cores, learner_device, worker_environment
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.isaac import adapter as isaac_lab
from isaac_hydra_ext.envs.isaac.cfg import TaskConfigs
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.pool import WorkerPool

CORES = len(os.sched_getaffinity(0))
ISAAC = {"env": {"kind": "isaaclab", "task": "Isaac-Ant-v0"}}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have PyTorch see so many GPUs; returns a function that says how many."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda count: monkeypatch.setattr("torch.cuda.device_count", lambda: count)


def placed(*typed: str, kind: str = "isaaclab") -> RunConfig:
    cfg: dict[str, Any] = {"env": {"kind": kind, "task": "Isaac-Ant-v0"}}
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
        (0, [], max(1, CORES - 1), "auto", "cpu"),
        (1, [], 0, "auto", "cuda:0"),
        (2, [], 1, "auto", "cuda:0"),
        (4, [], 3, "auto", "cuda:0"),
        (4, ["rollout.device=cpu"], max(1, CORES - 1), "cpu", "cuda:0"),
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
    gpus: Any, count: int, typed: list[str], workers: int, device: str, learner: str
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
    gpus: Any, count: int, typed: list[str], says: str
) -> None:
    gpus(count)
    with pytest.raises(ConfigError) as raised:
        placed(*typed)
    assert says in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, CORES),
        ({"cpu.max": "99900000 100000\n"}, CORES),
        ({"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, CORES),
        ({}, CORES),
    ],
)
def test_a_container_has_the_cores_that_its_quota_pays_for(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    there = [[tmp_path / "cpu.max"], [tmp_path / f"cpu.cfs_{n}_us" for n in ("quota", "period")]]
    monkeypatch.setattr("isaac_hydra_ext.config.placement.CPU_QUOTA", there)
    assert available_cores() == cores


def test_what_the_task_says_of_its_device_fits_the_workers_that_run(
    gpus: Any, monkeypatch: pytest.MonkeyPatch
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


def test_a_worker_that_runs_already_is_not_made_none(gpus: Any) -> None:
    gpus(2)
    cfg = {**ISAAC, "experiment": {"device": "cuda:0"}}
    with pytest.raises(ConfigError, match="experiment.device=cuda:0: simulates already"):
        load_run_config(cfg, (), {"rollout": {"device": "cuda:0"}}, 1)


def test_a_worker_sees_its_own_gpu_only(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def visible_gpus(pid: int | None) -> str:
    """Wait until the process has become Python; returns its CUDA_VISIBLE_DEVICES."""
    for _ in range(300):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(b"CUDA_VISIBLE_DEVICES="):
                return variable.decode().partition("=")[2]
        time.sleep(0.1)
    raise AssertionError("no process has it")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux's /proc")
def test_processes_get_their_gpu_and_are_told_its_name_there(gpus: Any) -> None:
    gpus(3)
    config = placed("rollout.device=[cuda:2,cuda:1]")
    pool = WorkerPool(config, StopSignals())
    try:
        pool._start()
        seen: list[Any] = [visible_gpus(worker.process.pid) for worker in pool._workers]
        assert seen == ["2", "1"]
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
        pool._workers[0].say = lambda kind, body: seen.append(body)  # type: ignore
        pool._workers[1].say = lambda kind, body: seen.append(body)  # type: ignore
        pool._wait_while = lambda *_: None  # type: ignore[method-assign]
        pool._spec = object()  # type: ignore[assignment]
        pool.build(config, Path("run"), None, 0)
        assert [body["config"]["rollout"]["device"] for body in seen[2:]] == ["cuda:0", "cuda:0"]
        assert config.rollout.device == "cuda:2,cuda:1"
    finally:
        pool.close()


def test_a_rollout_collected_elsewhere_is_copied_whole() -> None:
    from isaac_hydra_ext.rollout.layout import SlotLayout
    from isaac_hydra_ext.rollout.slot import Slot

    from .builders import env_spec

    layout = SlotLayout(env_spec(num_envs=3, has_final_obs=True), 4, torch.float32)
    here, there = Slot.allocate(layout, "cpu"), Slot.allocate(layout, "cpu")
    for slot, value in ((here, 0.0), (there, 1.0)):
        for tensor in slot._tensors.values():
            tensor.fill_(value)
    there.write_extra({"log": {"a": 1.0}})
    there.header["iteration"], there.header["final_count"] = 9, 2
    here.copy_from(there)
    assert here.header == there.header and here.read_extra() == {"log": {"a": 1.0}}
    for name, tensor in here._tensors.items():
        if name != "extra":
            rows = 2 if name.startswith("final_") else tensor.shape[0]
            assert bool((tensor[:rows] == 1).all()) and not bool(tensor[rows:].any()), name
