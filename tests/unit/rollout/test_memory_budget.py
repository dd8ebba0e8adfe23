"""What does not fit is refused before anything is started."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.config.seat import Seat
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.rollout import memory as memory_budget

from ..builders import run_config


@pytest.mark.parametrize(
    ("env", "workers", "needed"),
    [("gym_pendulum", 1000, "156.2"), ("mjlab_cartpole_balance", 100, "50.8")],
)
def test_more_workers_than_the_memory_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, env: str, workers: int, needed: str
) -> None:
    monkeypatch.setattr(memory_budget, "available_memory", lambda: 20 * 2**30)
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
    monkeypatch.setattr(memory_budget, "available_memory", lambda: 4 * 2**30)
    memory_budget.check_processes(config)
    config.seat = Seat(rank=1, size=2, local_rank=1, local_size=2)
    with pytest.raises(ConfigError, match="num_workers=20 for each of 2 ranks: the processes .* 6"):
        memory_budget.check_processes(config)
