"""Gradients written out by hand, against autograd's: the same to rounding."""

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from isaac_hydra_ext.envs.contract import ActionSpec
from isaac_hydra_ext.learner.group import OneProcess
from isaac_hydra_ext.learner.ppo.by_hand import by_hand
from isaac_hydra_ext.learner.ppo.epochs import Samples
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.learner.ppo.preparation import prepare
from isaac_hydra_ext.models.networks import ACTIVATIONS
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import continuous, discrete, env_spec, run_config

BOUNDED = ((-2.0, 2.0), (-1.0, 3.0))
CASES: dict[str, tuple[ActionSpec, dict[str, Any], dict[str, Any]]] = {
    "std": (continuous(*BOUNDED), {}, {}),
    "log std": (continuous(*BOUNDED), {"std_type": "log", "init_std": 0.7}, {}),
    "squashed": (continuous(*BOUNDED), {"squash": "tanh"}, {}),
    "one choice": (discrete(3), {}, {}),
    "choices": (discrete(2, 4), {}, {}),
    "values": (continuous((-1.0, 1.0)), {"normalize_values": True}, {"value_clip": None}),
    "no statistics": (
        continuous((-1.0, 1.0)),
        {"normalize_obs": False, "normalize_critic_obs": False, "critic_hidden_dims": [8]},
        {"entropy_coef": 0.0},
    ),
    **{name: (continuous((-1.0, 1.0)), {"activation": name}, {}) for name in ACTIVATIONS},
}


def loaded(action: ActionSpec, policy: dict[str, Any], ppo: dict[str, Any]) -> tuple[PPO, Samples]:
    """A learner that has learned once from random rollouts, and what its next update reads."""
    obs = {"policy": ((5,), "float32"), "critic": ((2, 3), "float64")}
    spec = env_spec(16, obs, action, has_final_obs=False)
    config = run_config(16, policy=policy, ppo={"batch_size": 37, "value_clip": 0.2, **ppo})
    learner = PPO(config, spec, torch.device("cpu"))
    generator = torch.Generator().manual_seed(5)
    slot = Slot.allocate(SlotLayout.of(spec, 8, learner.policy), "cpu")
    for tensor in (*slot.obs.values(), slot.reward_TB):
        tensor.normal_(generator=generator)
    if action.kind == "continuous":
        slot.action_TBA.normal_(generator=generator)
        if policy.get("distribution") == "beta":
            slot.action_TBA.tanh_()
    else:
        for index, count in enumerate(action.nvec):
            slot.action_TBA[..., index].random_(count, generator=generator)
    for flags in (slot.terminated_TB, slot.truncated_TB, slot.dropped_B):
        flags.fill_(False)
    slot.behavior_log_prob_TB.fill_(-1.0)
    learner.load([slot])
    learner.update(0)
    learner.load([slot])
    noise = learner._randomness.draw(1, 128).noise_NP
    found = prepare(config.ppo, spec, learner.policy, learner.batch, noise, OneProcess())
    return learner, Samples(learner.batch.samples_N, found.actor, found.critic)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_losses_and_gradients_are_those_of_autograd(case: Any) -> None:
    learner, samples = loaded(*case)
    ours = by_hand(learner._ppo, learner.policy)
    assert ours is not None
    ours.begin(samples.inputs, samples.actor, samples.critic)
    weights = learner.policy.flat[: learner.policy.num_params]
    # From where ratio and value are those of the start to where many of them are clipped.
    for distance in (0.0, 0.01, 0.1):
        weights.add_(
            torch.randn(weights.shape, generator=torch.Generator().manual_seed(7)) * distance
        )
        rows = torch.randperm(128, generator=torch.Generator().manual_seed(9))[:50]
        epochs = learner._epochs
        forwards = (epochs._actor_loss, epochs._critic_loss)
        actor, value, gradients = epochs._gradients(forwards, samples, rows)
        own_actor, own_value, own_gradients = ours.gradients(rows, apart=True)
        for name in ("total", "surrogate", "entropy", "kl", "clip_fraction"):
            torch.testing.assert_close(
                getattr(own_actor, name), getattr(actor, name).detach(), atol=2e-6, rtol=1e-5
            )
        torch.testing.assert_close(own_value, value, atol=1e-6, rtol=1e-5)
        assert len(own_gradients) == len(gradients)
        for own, theirs in zip(own_gradients, gradients, strict=True):
            torch.testing.assert_close(own, theirs, atol=2e-6, rtol=1e-4)
    assert actor.clip_fraction > 0.1


def test_a_minibatch_step_is_few_operations() -> None:
    learner, _ = loaded(*CASES["std"])
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        steps = learner.update(1)["Loss/minibatch_steps"]
    # All that PyTorch does, what an operation calls and the rest of an update included: 275 now
    # where four minibatches share an update's rest; by autograd there are over 1,000.
    assert steps == 20 and len(profiled.events() or []) / steps < 350


@pytest.mark.parametrize("case", ["std", "squashed", "choices", "values"])
def test_a_whole_update_is_that_of_autograd(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = loaded(*CASES[case])
    assert ours._epochs._by_hand is not None
    monkeypatch.setattr("isaac_hydra_ext.learner.ppo.epochs.by_hand", lambda *_: None)
    theirs, _ = loaded(*CASES[case])
    assert theirs._epochs._by_hand is None
    torch.testing.assert_close(ours.policy.flat, theirs.policy.flat, atol=1e-6, rtol=0)
    assert ours.lr == theirs.lr


def test_what_the_formulas_are_not_of_is_left_to_autograd() -> None:
    for ppo in ({"normalize_advantages_per_mini_batch": True},):
        learner, _ = loaded(*CASES["std"][:2], ppo)
        assert learner._epochs._by_hand is None


@pytest.mark.parametrize(
    "policy",
    [{"distribution": "beta"}, {"distribution": "heteroscedastic"}, {"learn_std": False}],
    ids=str,
)
def test_a_distribution_that_no_formula_is_known_for_is_left_to_autograd(
    policy: dict[str, Any],
) -> None:
    learner, _ = loaded(continuous((-1.0, 1.0), (-1.0, 1.0)), policy, {})
    assert by_hand(learner._ppo, learner.policy) is None
