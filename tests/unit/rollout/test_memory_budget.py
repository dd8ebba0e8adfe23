"""What does not fit is refused before anything is started."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.errors import ConfigError, SharedMemoryError
from isaac_hydra_ext.rollout import memory as memory_budget
from isaac_hydra_ext.rollout import processes

from ..builders import env_spec, run_config


@pytest.mark.parametrize(
    ("env", "workers", "needed"),
    [("gym_pendulum", 1000, "156.2"), ("mjlab_cartpole_balance", 100, "50.8")],
)
def test_more_workers_than_the_memory_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, env: str, workers: int, needed: str
) -> None:
    monkeypatch.setattr(processes, "available_memory", lambda: 20 * 2**30)
    typed = [
        f"env={env}",
        f"rollout.num_workers={workers}",
        f"experiment.output_dir={tmp_path}/logs",
    ]
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        cfg = compose("train_appo", typed)
    with pytest.raises(ConfigError) as raised:
        train(cfg, typed)
    assert str(raised.value) == (
        f"rollout.num_workers={workers}: the processes alone take {needed} GiB, "
        "available are 20.0 GiB; "
        "lower it (a core can run one or two)"
    )
    assert not (tmp_path / "logs").exists()


def test_the_ranks_of_a_node_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(rollout={"num_workers": 20})
    monkeypatch.setattr(processes, "available_memory", lambda: 4 * 2**30)
    processes.check_processes(config)
    config.seat = Seat(rank=1, size=2, local_rank=1, local_size=2)
    with pytest.raises(ConfigError, match="num_workers=20 for each of 2 ranks: the processes .* 6"):
        processes.check_processes(config)


PICTURES = {
    "env": {"id": "TestCatch-v0"},
    "policy": {"encoders": {"camera": {}}, "obs_groups": {"actor": ["camera", "policy"]}},
}
CAMERA = {"camera": ((3, 64, 64), "float32"), "policy": ((4,), "float32")}


@pytest.mark.parametrize(
    ("where", "storage", "needed"),
    [
        # One slot and the copy of its vectors: 33 * 1,000 pictures of 48 KiB; or of 24.
        ("cpu", "as_is", "1.5"),
        ("cpu", "float16", "0.8"),
        ("cuda:0", "as_is", "1.5"),
    ],
)
def test_rollouts_of_pictures_are_refused_with_their_sizes(
    monkeypatch: pytest.MonkeyPatch, where: str, storage: str, needed: str
) -> None:
    rollout = {"steps_per_env": 32, "image_storage": storage}
    config = run_config(1000, rollout=rollout, **PICTURES)
    config.rollout.device = config.experiment.device = where
    spec, on_cpu = env_spec(1000, CAMERA), where == "cpu"
    limits = {"cpu": 100 * 2**30, "cuda:0": 100 * 2**30}
    monkeypatch.setattr(memory_budget, "available_memory", lambda: limits["cpu"])
    monkeypatch.setattr(memory_budget, "free_memory", lambda device: limits[device])
    memory_budget.check_memory(config, spec, on_cpu)
    limits[where] = 2**29
    with pytest.raises(SharedMemoryError) as raised:
        memory_budget.check_memory(config, spec, on_cpu)
    said = str(raised.value)
    assert f"need {needed} GiB, available are 0.5 GiB: 1 slots of" in said
    assert ("on cuda:0" in said) is (where != "cpu")
    assert ("image_storage=float16" in said) is (storage == "as_is")
    assert "pictures of 48 KiB" in said or storage == "float16"
