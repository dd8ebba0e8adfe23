"""Rollouts from a source that this package knows nothing of."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from registration import register_package
from unit.builders import run_config

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.errors import ConfigError

Train = Callable[..., Checkpoint]
ENTRY_POINTS = """
[isaac_hydra_ext.sources]
recorder = replayed_rollouts:record
replayer = replayed_rollouts:replay
gone = replayed_rollouts:no_such_thing
"""


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register them as an installed package would."""
    register_package(tmp_path / "site", "far_source", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_replayed_rollouts_train_to_the_weights_of_the_run_that_recorded_them(
    train_run: Train,
) -> None:
    typed = ("rollout.max_policy_lag=0", "rollout.num_workers=2", "experiment.max_iterations=13")
    recorded = train_run(*typed, "rollout.source=recorder")  # 208 steps: past an episode's end
    replayed = train_run(*typed, "rollout.source=replayer")
    assert replayed.meta["config"]["rollout"]["source"] == "replayer"
    assert replayed.tensors.keys() == recorded.tensors.keys()
    for name, tensor in recorded.tensors.items():
        assert torch.equal(tensor, replayed.tensors[name]), name
    assert replayed.meta["episodes"] == recorded.meta["episodes"]
    summaries = [
        json.loads((run.path.parent.parent / "summary.json").read_text())
        for run in (recorded, replayed)
    ]
    assert summaries[1]["samples_produced"] == summaries[1]["samples_consumed"] == 13 * 2 * 4 * 16
    for key in ("mean_return", "mean_episode_length", "samples_abandoned", "env_steps"):
        assert summaries[0][key] == summaries[1][key], key


def test_a_source_that_nobody_registers_or_that_cannot_be_imported_is_refused() -> None:
    for name, says in (
        ("replay", "rollout.source=replay: must be one of auto, gone, recorder, replayer"),
        ("gone", "rollout.source=gone: replayed_rollouts:no_such_thing cannot be imported"),
    ):
        with pytest.raises(ConfigError) as refused:
            run_config(rollout={"source": name})
        assert says in str(refused.value) and "\n" not in str(refused.value)
