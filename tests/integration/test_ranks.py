"""Runs of several ranks: real processes that find each other, by gloo on a CPU."""

import json
from collections.abc import Callable

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint

TWO = (
    "experiment.devices=[cpu,cpu]", "rollout.num_workers=0", "rollout.deterministic=true",
    "rollout.max_policy_lag=0", "checkpoint.every=2", "policy.hidden_dims=[8]",
)  # fmt: skip
Train = Callable[..., Checkpoint]


@pytest.mark.alone
def test_ranks_learn_the_same_each_time_and_go_on_exactly_also_as_one(
    train_run: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = train_run(*TWO, "experiment.max_iterations=4")
    run_dir = whole.path.parent.parent
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["env_steps"] == summary["samples_consumed"] == 2 * 4 * 4 * 16
    assert summary["samples_produced"] == summary["env_steps"] + summary["samples_abandoned"]
    assert whole.meta["ranks"] == 2 and len(whole.meta["env_states"]) == 2
    assert [len(rows) for rows in whole.meta["episodes"]["running"].values()] == [2, 2, 2]
    assert (run_dir / "rank_1" / "rank.log").exists()

    half = run_dir / "checkpoints" / "model_2.safetensors"
    again = train_run(*TWO, "experiment.max_iterations=4", f"resume={half}")
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, again.tensors[name]), name
    assert again.meta["env_states"] == whole.meta["env_states"]

    capfd.readouterr()
    alone = (*TWO[1:], "experiment.max_iterations=5", "logging.console=plain")
    train_run(*alone, f"resume={whole.path}")
    assert "experiment.devices: [" in (said := capfd.readouterr().out)
    assert "start anew" not in said  # one collector, and there are two states


@pytest.mark.parametrize(
    "memory", [(), ("policy.recurrent.kind=lstm", "policy.recurrent.hidden=8")], ids=["mlp", "lstm"]
)
def test_two_ranks_collect_what_two_workers_do(train_run: Train, memory: tuple[str, ...]) -> None:
    """One update of all samples at once: there is nothing that could be in another order."""
    same = (
        *memory,
        "experiment.max_iterations=1", "policy.hidden_dims=[8]", "ppo.update_epochs=1",
        "rollout.deterministic=true", "ppo.num_mini_batches=1", "ppo.lr_schedule=fixed",
    )  # fmt: skip
    one = train_run("rollout.num_workers=2", *same)
    two = train_run("experiment.devices=[cpu,cpu]", "rollout.num_workers=0", *same)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, two.tensors[name], rtol=1e-5, atol=1e-6, msg=name)
