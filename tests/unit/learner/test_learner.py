"""One update: what it computes, what stops it, and what it leaves alone."""

from typing import Any

import numpy as np
import pytest
import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import NonFiniteError
from isaac_hydra_ext.learner.group import OneProcess
from isaac_hydra_ext.learner.ppo.losses import actor_loss, critic_loss
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.learner.ppo.preparation import Prepared, prepare
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system.seeding import Stream, make_generator

from ..builders import InProcessRun, changed, env_spec, learner_state, run_config

CPU = torch.device("cpu")


def pendulum(num_envs: int = 4, **sections: dict[str, Any]) -> InProcessRun:
    return InProcessRun(run_config(num_envs, **sections))


def collected(num_envs: int = 4, **sections: dict[str, Any]) -> InProcessRun:
    run = pendulum(num_envs, **sections)
    run.collect(0)
    return run


FIXED = {"lr_schedule": "fixed", "update_epochs": 1}


# ------------------------------------------------------------------ the update


def test_at_lag_0_the_ratio_is_1_over_several_updates_with_the_normaliser_on() -> None:
    run = pendulum(16, rollout={"steps_per_env": 32}, ppo={"batch_size": 128})
    assert run.config.policy.normalize_obs
    for k in range(5):
        run.collect(k)
        metrics = run.update(k)
        assert metrics["Async/ratio_deviation"] <= 1e-4
        assert metrics["Async/effective_sample_size"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["Async/truncated_weights"] == 0.0
        assert metrics["Policy/kl"] > 0
    normalizer = run.learner.policy.actor_normalizers["policy"]
    assert normalizer.count == 5 * 16 * 32


@pytest.mark.parametrize(
    "policy",
    [
        {"distribution": "beta"},
        {"distribution": "heteroscedastic", "std_type": "log"},
        {"distribution": "heteroscedastic", "squash": "tanh", "std_range": [0.1, 1.5]},
        {"learn_std": False, "init_std": 0.6},
    ],
    ids=str,
)
def test_at_lag_0_the_ratio_is_1_with_every_distribution(policy: dict[str, Any]) -> None:
    run = pendulum(16, rollout={"steps_per_env": 32}, ppo={"batch_size": 128}, policy=policy)
    for k in range(3):
        run.collect(k)
        metrics = run.update(k)
        assert metrics["Async/ratio_deviation"] <= 1e-4
        assert 0 < metrics["Policy/kl"] < 1 and 0.1 < metrics["Policy/mean_std"] < 1.5
    if "init_std" in policy:
        assert metrics["Policy/mean_std"] == pytest.approx(0.6)


def test_the_std_of_actions_is_shown_where_they_have_one() -> None:
    for env, has_std in (({"id": "Pendulum-v1"}, True), ({"id": "CartPole-v1"}, False)):
        shown = [metric.tag for metric in pendulum(env=env).learner.shown]
        assert ("Policy/mean_std" in shown) is has_std and "Loss/learning_rate" in shown


def prepared(config: RunConfig, learner: PPO) -> Prepared:
    return prepare(config.ppo, learner._spec, learner.policy, learner.batch, None, OneProcess())


def reference_epoch(config: RunConfig, learner: PPO) -> tuple[list[int], torch.Tensor]:
    """One epoch by plain autograd on a second network, with its own Adam on separate tensors."""
    policy = ActorCritic(config.policy, learner._spec, config.experiment.seed)
    policy.load_state_dict(learner.policy.state_dict())
    batch = prepared(config, learner)
    generator = make_generator(config.experiment.seed, Stream.SHUFFLE, 0)
    order = torch.randperm(batch.target_N.numel(), generator=generator)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.ppo.lr)
    sizes = []
    for rows in order.tensor_split(-(-order.numel() // config.ppo.batch_size)):
        sizes.append(rows.numel())
        obs = {"policy": learner.batch.obs_N["policy"][rows]}
        samples = batch.actor.take(rows)
        if config.ppo.normalize_advantages_per_mini_batch:
            advantage = samples.advantage_M.numpy()
            advantage = (advantage - advantage.mean()) / advantage.std()
            samples.advantage_M = torch.from_numpy(advantage)
        actor = actor_loss(config.ppo, policy.distribution, samples, policy.action_params(obs))
        critic = critic_loss(config.ppo, batch.critic.take(rows), policy.raw_value(obs))
        optimizer.zero_grad()
        (actor.total + config.ppo.value_coef * critic).backward()
        actors = [p for name, p in policy.named_parameters() if not name.startswith("critic.")]
        for network in (actors, policy.critic.parameters()):
            torch.nn.utils.clip_grad_norm_(network, config.ppo.max_grad_norm)
        optimizer.step()
    return sizes, policy.flat[: policy.num_params]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("batch_size", "sizes"), [(15, [11, 11, 10]), (31, [16, 16])])
def test_minibatches_are_as_equal_as_can_be_and_each_the_mean_over_its_own_rows(
    batch_size: int, sizes: list[int], alone: bool
) -> None:
    ppo = {**FIXED, "batch_size": batch_size, "normalize_advantages_per_mini_batch": alone}
    run = collected(ppo=ppo)  # N_buffer = 4 * 8 = 32
    taken, expected = reference_epoch(run.config, run.learner)
    assert taken == sizes
    metrics = run.learner.update(0)
    policy = run.learner.policy
    assert metrics["Loss/minibatch_steps"] == len(sizes)
    torch.testing.assert_close(policy.flat[: policy.num_params], expected, rtol=1e-5, atol=1e-6)


def test_every_epoch_has_its_own_order_and_the_same_seed_the_same_weights() -> None:
    flats = []
    for seed in (1, 1, 2):
        run = collected(experiment={"seed": seed}, ppo={"update_epochs": 2, "batch_size": 8})
        assert run.update(0)["Loss/minibatch_steps"] == 8
        flats.append(run.learner.policy.flat.clone())
    assert torch.equal(flats[0], flats[1])
    assert not torch.equal(flats[0], flats[2])


def hand_filled(values: tuple[float, ...] = (2, 4, 6, 8), **knobs: Any) -> tuple[PPO, Slot]:
    """A learner and a slot of T = 3, B = 1, whose critic says `values`, then the one after.

    The critic is its first input. Rewards are 1, 2, 3; the episode is cut off after the second.
    """
    settings = {"gamma": 0.5, "lam": 0.0, "value_clip": None, "batch_size": 3, **FIXED}
    config = run_config(1, rollout={"steps_per_env": 3}, ppo=settings)
    spec = env_spec(1, **knobs)
    learner = PPO(config, spec, CPU)
    with torch.no_grad():
        for layer in learner.policy.critic:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
                layer.weight[0, 0] = 1.0  # ELU is the identity above 0
    layout = SlotLayout(spec, 3, torch.float32)
    slot = Slot.map(layout, np.zeros(layout.nbytes, np.uint8))
    slot.obs["policy"][:, 0, 0] = torch.tensor(values)
    slot.reward_TB[:, 0] = torch.tensor([1.0, 2.0, 3.0])
    slot.truncated_TB[1, 0] = True
    slot.behavior_log_prob_TB.copy_(
        learner.policy.distribution.log_prob(
            learner.policy.action_params({"policy": slot.obs["policy"][:3].flatten(0, 1)}),
            slot.action_TBA.flatten(0, 1),
        ).unsqueeze(1)
    )
    return learner, slot


def value_loss(learner: PPO, slot: Slot) -> float:
    learner.load([slot])
    return learner.update(0)["Loss/value"]


# V is 2, 4, 6 and 8 after. Without the end: targets 1 + .5*4 = 3 (error 1) and 3 + .5*8 = 7
# (error 1) for the first and the last step; the second step's is the tests' subject.


def test_a_truncation_without_final_observations_bootstraps_from_its_own_state() -> None:
    # 2 + .5*V(s_1) = 4: error 0; V of the next episode's first observation would give 5.
    learner, slot = hand_filled(has_final_obs=False)
    assert value_loss(learner, slot) == pytest.approx(2 / 3, rel=1e-6)


def test_a_truncation_of_a_finite_horizon_does_not_bootstrap() -> None:
    # 2: error 2, squared 4.
    learner, slot = hand_filled(has_final_obs=False, finite_horizon=True)
    assert value_loss(learner, slot) == pytest.approx(6 / 3, rel=1e-6)


def test_a_truncation_bootstraps_from_its_final_observation() -> None:
    # V(final) = 10: 2 + .5*10 = 7: error 3, squared 9.
    learner, slot = hand_filled()
    assert slot.final_index_C2 is not None
    slot.header["final_count"] = 1
    slot.final_index_C2[0] = torch.tensor([1, 0])
    slot.final_obs["policy"][0, 0] = 10.0
    slot.final_obs["policy"][1:] = float("nan")  # beyond the count nothing is read
    assert value_loss(learner, slot) == pytest.approx(11 / 3, rel=1e-6)


def test_an_end_for_both_reasons_does_not_bootstrap() -> None:
    learner, slot = hand_filled()
    slot.terminated_TB[1, 0] = True
    assert value_loss(learner, slot) == pytest.approx(6 / 3, rel=1e-6)


def test_lagged_samples_are_weighted_by_the_truncated_importance_weight() -> None:
    # behaviour log-probs lower by log 1.5 and log 8: weights 1.5, 1 and min(8, 2) = 2.
    learner, slot = hand_filled((2, 2, 2, 2), has_final_obs=False)
    slot.behavior_log_prob_TB[0] -= torch.tensor(1.5).log()
    slot.behavior_log_prob_TB[2] -= torch.tensor(8.0).log()
    learner.load([slot])
    samples = prepared(learner._config, learner).actor
    assert samples.weight_M.tolist() == pytest.approx([1.5, 1.0, 2.0], rel=1e-5)
    metrics = learner.update(0)
    # (4.5)^2 / (2.25 + 1 + 4) / 3, and one of three was truncated
    assert metrics["Async/effective_sample_size"] == pytest.approx(20.25 / 7.25 / 3, rel=1e-5)
    assert metrics["Async/truncated_weights"] == pytest.approx(1 / 3)
    assert metrics["Async/ratio_deviation"] == pytest.approx(7.0, rel=1e-4)
    # V is 2: advantages 1+1-2, 2+1-2, 3+1-2 = (0, 1, 2) become (-s, 0, s), s = sqrt(1.5):
    # minus the mean of 1.5 * -s and 2 * s.
    assert metrics["Loss/surrogate"] == pytest.approx(-0.5 * 1.5**0.5 / 3, rel=1e-4)


# ------------------------------------------------------------------ envs that were left out


def wide_and_narrow(policy: dict[str, Any]) -> tuple[InProcessRun, InProcessRun]:
    """Rollouts of 4 envs; the second run knows nothing of env 2, which is left out of the first."""
    runs = []
    for num_envs in (4, 3):
        run = pendulum(num_envs, policy=policy, ppo={"batch_size": 10})
        run.collect(0)
        runs.append(run)
    wide, narrow = runs
    slot = wide.source.gather(0)[0]
    truncated = torch.zeros_like(slot.truncated_TB)
    truncated[3, 1] = truncated[5, 2] = truncated[6, 3] = True
    assert slot.final_index_C2 is not None
    slot.truncated_TB.copy_(truncated)
    slot.final_index_C2[:3] = truncated.nonzero()
    slot.final_obs["policy"][:3] = torch.arange(9.0).view(3, 3)
    slot.header["final_count"] = 3
    slot.dropped_B[2] = True
    wide.learner.load([slot])
    kept = [0, 1, 3]
    narrow_slot = narrow.source.gather(0)[0]
    for name in ("action_TBA", "reward_TB", "behavior_log_prob_TB", "truncated_TB"):
        getattr(narrow_slot, name).copy_(getattr(slot, name)[:, kept])
    narrow_slot.obs["policy"].copy_(slot.obs["policy"][:, kept])
    assert narrow_slot.final_index_C2 is not None
    narrow_slot.final_index_C2[:2] = torch.tensor([[3, 1], [6, 2]])
    narrow_slot.final_obs["policy"][:2] = slot.final_obs["policy"][[0, 2]]
    narrow_slot.header["final_count"] = 2
    narrow.learner.load([narrow_slot])
    # What is wrong with env 2 must be nowhere.
    slot.obs["policy"][:, 2] = float("nan")
    slot.reward_TB[:, 2] = float("nan")
    slot.final_obs["policy"][1] = float("nan")
    wide.learner.load([slot])
    return wide, narrow


@pytest.mark.parametrize("policy", [{}, {"normalize_values": True, "squash": "tanh"}])
def test_an_update_without_an_env_is_that_of_a_run_without_it(policy: dict[str, Any]) -> None:
    wide, narrow = wide_and_narrow(policy)
    found, expected = wide.learner.update(0), narrow.learner.update(0)
    assert found == expected
    assert found["Loss/undone"] == 0
    assert changed(learner_state(narrow.learner), learner_state(wide.learner)) == []


def test_an_update_without_any_sample_is_an_error_and_changes_no_bit() -> None:
    run = collected()
    slot = run.source.gather(0)[0]
    slot.dropped_B.fill_(True)
    run.learner.load([slot])
    before = learner_state(run.learner)
    with pytest.raises(NonFiniteError, match="iteration 0: every env has been left out"):
        run.learner.update(0)
    assert changed(before, learner_state(run.learner)) == []
