"""Learning from pictures: shared encoders, and what the learner keeps of a rollout."""

from typing import Any

import pytest
import torch

from isaac_hydra_ext.learner.group import OneProcess
from isaac_hydra_ext.learner.ppo.losses import actor_loss, critic_loss
from isaac_hydra_ext.learner.ppo.preparation import prepare

from ..builders import InProcessRun, run_config

CATCH = {"id": "TestCatch-v0", "imports": ["tests.integration.catch_env"]}
ENCODER = {"channels": [4, 8], "kernel": [4, 3], "stride": [2, 2]}


def catch(policy: dict[str, Any] | None = None, **sections: dict[str, Any]) -> InProcessRun:
    settings = {"encoders": {"policy": ENCODER}, "hidden_dims": [16], **(policy or {})}
    return InProcessRun(run_config(4, **{"env": CATCH, "policy": settings, **sections}))


@pytest.mark.parametrize("share", [False, True])
def test_gradients_are_those_of_both_losses(share: bool) -> None:
    run = catch({"share_encoders": share}, ppo={"value_coef": 0.5})
    run.collect(0)
    learner, ppo = run.learner, run.config.ppo
    made = prepare(ppo, learner._spec, learner.policy, learner.batch, None, OneProcess())
    rows = torch.arange(32)[::2]
    epochs, policy = learner._epochs, learner.policy
    assert epochs._by_hand is None
    samples = type("Samples", (), {"inputs": learner.batch.samples_N, "actor": made.actor,
                                   "critic": made.critic})  # fmt: skip
    forwards = (epochs._actor_loss, epochs._critic_loss)
    actor, value, gradients = epochs._gradients(forwards, samples, rows)  # type: ignore[arg-type]
    obs = {"policy": learner.batch.samples_N["policy"][rows]}
    expected = actor_loss(
        ppo, policy.distribution, made.actor.take(rows), policy.action_params(obs)
    ).total + 0.5 * critic_loss(ppo, made.critic.take(rows), policy.raw_value(obs))
    in_order = [p for part in policy.parameter_groups().values() for p in part]
    for found, wanted in zip(gradients, torch.autograd.grad(expected, in_order), strict=True):
        torch.testing.assert_close(found, wanted)


def test_each_group_of_parameters_is_clipped_by_itself() -> None:
    run = catch({"share_encoders": True}, ppo={"max_grad_norm": 0.01, "update_epochs": 1})
    run.collect(0)
    metrics = run.update(0)
    norms = [metrics[f"Loss/{name}_grad_norm"] for name in ("actor", "shared", "critic")]
    assert all(norm > 0.01 for norm in norms), norms
    assert metrics["Loss/undone"] == 0.0


def test_at_lag_0_the_ratio_is_1() -> None:
    run = catch(ppo={"batch_size": 16})
    for k in range(3):
        run.collect(k)
        assert run.update(k)["Async/ratio_deviation"] <= 1e-4
