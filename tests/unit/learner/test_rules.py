"""The optimizers against torch's own, with what stops and restores a step."""

from typing import Any

import pytest
import torch

from isaac_hydra_ext.learner.rules import RULES

from ..builders import InProcessRun, changed, learner_state, run_config

THEIRS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}
OTHERS = [name for name in RULES if name != "adam"]


@pytest.mark.parametrize("name", RULES)
def test_steps_are_torchs_own(name: str) -> None:
    draw = torch.Generator().manual_seed(4)
    ours = torch.randn(50, generator=draw)
    theirs = torch.nn.Parameter(ours.clone())
    optimizer = THEIRS[name]([theirs], lr=1e-3)
    remembered, yes, no = RULES[name].begin(ours), torch.tensor(True), torch.tensor(False)
    for step in range(10):
        gradient = torch.randn(50, generator=draw) * 10.0 ** (step % 5 - 2)
        theirs.grad = gradient.clone()
        optimizer.step()
        RULES[name].step_(ours, gradient, torch.tensor(1e-3), yes, **remembered)
        before = [x.clone() for x in (ours, *remembered.values())]
        bad = torch.full((50,), torch.nan) if name != "adam" else gradient
        RULES[name].step_(ours, bad, torch.tensor(1e-3), no, **remembered)
        for x, y in zip((ours, *remembered.values()), before, strict=True):
            assert torch.equal(x, y)
    torch.testing.assert_close(ours, theirs.data, atol=1e-6, rtol=0)


def learner_run(**ppo: Any) -> InProcessRun:
    return InProcessRun(run_config(4, ppo={"lr": 1e-3, **ppo}))


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_saved_restored_and_undone(name: str) -> None:
    run = learner_run(optimizer=name)
    run.collect(0)
    run.update(0)
    saved = learner_state(run.learner)
    assert {n for n in saved if n.startswith("optimizer.")} == {
        f"optimizer.{n}" for n in RULES[name].begin(torch.zeros(1))
    }
    run.collect(1)
    run.learner.batch.reward_TN[0, 0] = torch.nan
    assert run.update(1)["Loss/undone"] == 1.0
    assert changed(saved, learner_state(run.learner)) == []
    other = learner_run(optimizer=name)
    other.learner.load_state_dict(saved)
    assert changed(saved, learner_state(other.learner)) == []


def test_adams_moments_are_left_where_another_optimizer_goes_on() -> None:
    run = learner_run()
    run.collect(0)
    run.update(0)
    saved = learner_state(run.learner)
    other = learner_run(optimizer="rmsprop")
    other.learner.load_state_dict(saved)
    assert torch.equal(other.learner.policy.flat, run.learner.policy.flat)
    assert not other.learner.state_dict()["optimizer.square_avg"].any()
