"""What does not fit is refused before anything is started."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.rollout import memory as memory_budget


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
