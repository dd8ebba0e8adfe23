"""The learning rate's rules, and updates that must not happen."""

import pytest
import torch

from isaac_hydra_ext.errors import DeviceMemoryError, NonFiniteError
from isaac_hydra_ext.learner.optimizer import LR_RANGE
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.models.actor_critic import MIN_STD

from ..builders import InProcessRun, changed, env_spec, learner_state, run_config
from .test_learner import collected, pendulum

FIXED = {"lr_schedule": "fixed", "batch_size": 8, "update_epochs": 1}


# ------------------------------------------------------------------ learning rate


def adapted(lr: float, kl: float, stop: float = 0.0) -> float:
    learner = PPO(run_config(ppo={"lr": lr, "desired_kl": 0.01}), env_spec(), torch.device("cpu"))
    optimizer = learner._epochs.optimizer
    optimizer.stop.fill_(stop)
    optimizer.step([torch.zeros(learner.policy.num_params)], [torch.zeros(())], torch.tensor(kl), 1)
    return learner.lr.item()


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (0.021, 1 / 1.5),
        (0.019, 1.0),
        (0.0051, 1.0),
        (0.0049, 1.5),
        (1e-9, 1.5),
        (0.0, 1.0),  # the first minibatch of an update, at ratio 1, says nothing
    ],
)
def test_the_adaptive_rate_follows_rsl_rls_rule(kl: float, factor: float) -> None:
    assert adapted(1e-3, kl) == pytest.approx(1e-3 * factor, rel=1e-6)


def test_the_adaptive_rate_keeps_its_bounds() -> None:
    assert LR_RANGE == (1e-5, 1e-2)
    assert adapted(1.2e-5, 1.0) == pytest.approx(1e-5)
    assert adapted(9e-3, 1e-4) == pytest.approx(1e-2)


@pytest.mark.parametrize(("lr", "kl"), [(0.05, 1e-4), (1e-6, 1.0)])
def test_a_rate_that_is_set_outside_the_bounds_is_a_bound_itself(lr: float, kl: float) -> None:
    assert adapted(lr, kl) == pytest.approx(lr, rel=1e-6), "raising it must not lower it"
    assert adapted(0.05, 1.0) == pytest.approx(0.05 / 1.5)
    assert adapted(1e-6, 1e-4) == pytest.approx(1.5e-6)


def test_the_adaptive_rate_stands_still_after_a_stop() -> None:
    assert adapted(1e-3, 1.0, stop=1.0) == pytest.approx(1e-3, rel=1e-6)


def test_the_adaptive_rate_reaches_the_optimizer() -> None:
    ppo = {"lr_schedule": "adaptive", "desired_kl": 1e-9, "batch_size": 8, "update_epochs": 1}
    run = collected(ppo={**ppo, "lr": 1e-3})
    # 4 minibatches: at KL 0 unchanged, then three times above 2e-9: 1e-3 / 1.5^3.
    metrics = run.update(0)
    assert metrics["Loss/learning_rate"] == pytest.approx(1e-3 / 1.5**3, rel=1e-5)


def test_the_linear_schedule_falls_to_its_last_step_and_moves_the_weights_that_far() -> None:
    run = pendulum(
        ppo={"lr_schedule": "linear", "lr": 0.008, "batch_size": 32, "update_epochs": 1},
        experiment={"max_iterations": 4},
    )
    for k, expected in enumerate((0.008, 0.006, 0.004, 0.002)):
        run.collect(k)
        before = run.learner.policy.flat.clone()
        assert run.update(k)["Loss/learning_rate"] == pytest.approx(expected, rel=1e-6)
        if k == 0:  # Adam's first step is lr * sign(gradient)
            n = run.learner.policy.num_params
            moved = (run.learner.policy.flat - before)[:n].abs().max().item()
            assert moved == pytest.approx(0.008, rel=1e-3)


def test_the_fixed_schedule_is_fixed() -> None:
    run = collected(ppo={**FIXED, "lr": 3e-4})
    assert run.update(0)["Loss/learning_rate"] == pytest.approx(3e-4, rel=1e-6)


# ------------------------------------------------------------------ stopping


def test_after_stop_kl_the_remaining_steps_change_no_bit() -> None:
    # KL is 0 at the first minibatch and above 1e-9 from the second on: one epoch of 4
    # minibatches and 50 epochs both take exactly the first step.
    states = []
    for epochs in (1, 50):
        ppo = {**FIXED, "stop_kl": 1e-9, "update_epochs": epochs}
        run = collected(ppo=ppo)
        metrics = run.update(0)
        assert metrics["Loss/minibatch_steps"] == 1
        assert metrics["Loss/stopped_early"] == 1
        states.append(learner_state(run.learner))
    assert states[0]["optimizer.step"].item() == 1
    assert changed(*states) == []


def test_the_next_update_after_a_stop_steps_again() -> None:
    run = collected(ppo={**FIXED, "stop_kl": 1e-9})
    run.update(0)
    run.collect(1)
    before = learner_state(run.learner)
    assert run.update(1)["Loss/minibatch_steps"] == 1
    assert "policy.actor.0.weight" in changed(before, learner_state(run.learner))
    assert run.learner.state_dict()["optimizer.step"].item() == 2


def test_without_stop_kl_nothing_stops() -> None:
    metrics = collected(ppo={**FIXED, "update_epochs": 3}).update(0)
    assert metrics["Loss/minibatch_steps"] == 12
    assert metrics["Loss/stopped_early"] == 0


# ------------------------------------------------------------------ not a number


def one_good_update(**ppo: object) -> InProcessRun:
    run = collected(ppo={**FIXED, **ppo}, policy={"normalize_values": True})
    run.update(0)
    run.collect(1)
    return run


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("schedule", ["fixed", "adaptive", "linear"])
def test_a_reward_that_is_not_finite_changes_no_bit(poison: float, schedule: str) -> None:
    run = one_good_update(lr_schedule=schedule, normalize_advantages=True)
    before = learner_state(run.learner)
    run.learner.batch.reward_TN[3, 1] = poison
    assert run.learner.update(1)["Loss/undone"] == 1
    assert changed(before, learner_state(run.learner)) == []


def test_an_observation_that_is_not_a_number_changes_no_bit() -> None:
    run = one_good_update()
    before = learner_state(run.learner)
    run.learner.batch.obs["policy"][2, 0] = float("nan")
    assert run.learner.update(1)["Loss/undone"] == 1
    assert changed(before, learner_state(run.learner)) == []


def test_the_steps_before_a_bad_minibatch_are_undone_as_well() -> None:
    # Without normalised advantages a NaN in a first step poisons one row: one minibatch of four.
    bad_rows = []
    for column in range(4):
        run = one_good_update(normalize_advantages=False, lr_schedule="adaptive")
        before = learner_state(run.learner)
        run.learner.batch.reward_TN[0, column] = float("nan")
        metrics = run.learner.update(1)
        assert changed(before, learner_state(run.learner)) == []
        assert metrics["Loss/minibatch_steps"] == 0
        assert metrics["Loss/learning_rate"] == run.learner.lr.item()
        assert metrics["Policy/mean_std"] == run.learner.policy.mean_std().item()
        bad_rows.append(metrics["Loss/surrogate"] != 0)  # a mean over the steps taken before it
    assert any(bad_rows), "some bad minibatch should have come after a good one"


def test_a_first_update_that_is_bad_leaves_a_new_learner() -> None:
    run, fresh = collected(ppo=FIXED), collected(ppo=FIXED)
    run.learner.batch.reward_TN[0, 0] = float("nan")
    assert run.learner.update(0)["Loss/undone"] == 1
    assert changed(learner_state(fresh.learner), learner_state(run.learner)) == []


def test_weights_that_a_last_step_spoils_are_undone() -> None:
    run = collected(ppo={**FIXED, "batch_size": 32})
    run.learner.lr.fill_(float("inf"))
    before = learner_state(run.learner)
    assert run.learner.update(0)["Loss/undone"] == 1
    assert changed(before, learner_state(run.learner)) == []


def test_an_update_that_does_not_fit_on_the_device_changes_no_bit_and_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = collected()
    before = learner_state(run.learner)

    def fails_half_way(*_: object) -> None:
        run.learner.policy.flat.add_(1.0)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nIf ...")

    monkeypatch.setattr(run.learner, "_compute", fails_half_way)
    with pytest.raises(DeviceMemoryError) as raised:
        run.learner.update(0)
    assert str(raised.value) == (
        "cpu: no memory for an update of 32 samples (CUDA out of memory. Tried to allocate 2 GiB.);"
        " lower rollout.envs_per_worker or rollout.steps_per_env, or raise ppo.num_mini_batches"
    )
    assert not changed(before, learner_state(run.learner))


def test_an_update_after_an_undone_one_is_as_if_that_had_never_been() -> None:
    undone, never = one_good_update(), one_good_update()
    good = undone.learner.batch.reward_TN.clone()
    undone.learner.batch.reward_TN[:] = float("nan")
    assert undone.learner.update(1)["Loss/undone"] == 1
    undone.learner.batch.reward_TN.copy_(good)
    for run in (undone, never):
        assert run.learner.update(1)["Loss/undone"] == 0
    assert changed(learner_state(undone.learner), learner_state(never.learner)) == []


def bad_updates(run: InProcessRun, count: int) -> None:
    good = run.learner.batch.reward_TN.clone()
    run.learner.batch.reward_TN[:] = float("nan")
    for _ in range(count):
        run.learner.update(1)
    run.learner.batch.reward_TN.copy_(good)


@pytest.mark.parametrize("limit", [0, 2])
def test_one_more_bad_update_in_a_row_than_the_limit_ends_the_run(limit: int) -> None:
    run = one_good_update(max_bad_updates=limit)
    before = learner_state(run.learner)
    bad_updates(run, limit)
    run.learner.batch.reward_TN[:] = float("nan")
    with pytest.raises(NonFiniteError, match=f"iteration 1: .*max_bad_updates={limit}") as e:
        run.learner.update(1)
    assert "ppo.lr" in str(e.value) and len(str(e.value).splitlines()) == 1
    assert changed(before, learner_state(run.learner)) == []


def test_a_good_update_ends_the_row() -> None:
    run = one_good_update(max_bad_updates=2)
    for _ in range(3):
        bad_updates(run, 2)
        assert run.learner.update(1)["Loss/undone"] == 0


def test_a_std_pushed_below_its_floor_is_lifted_before_the_next_minibatch() -> None:
    # Adam's first step is the learning rate, 0.01: five times the std. Small noise is rewarded,
    # so the gradient points down.
    run = collected(
        ppo={**FIXED, "lr": 0.01, "entropy_coef": 0.0, "gamma": 0.0, "update_epochs": 4},
        policy={"init_std": 0.002},
    )
    batch, policy = run.learner.batch, run.learner.policy
    mean = policy.action_params(batch.obs_N)[:, :1].detach().view(*batch.reward_TN.shape)
    batch.reward_TN.copy_(-((batch.action_TNA[..., 0] - mean) / 0.002).square())
    run.learner.update(0)
    assert policy.std is not None and (policy.std >= MIN_STD).all()


# ------------------------------------------------------------------ state


def test_state_dict_round_trip_continues_to_the_same_bits() -> None:
    one, other = (collected(ppo={"batch_size": 8}) for _ in range(2))
    one.update(0)
    flat = other.learner.policy.flat
    other.learner.load_state_dict(learner_state(one.learner))
    assert changed(learner_state(one.learner), learner_state(other.learner)) == []
    assert other.learner.policy.flat is flat and torch.equal(flat, one.learner.policy.flat)
    for run in (one, other):
        run.learner.update(1)  # on the same batch
    assert changed(learner_state(one.learner), learner_state(other.learner)) == []


def test_a_loaded_state_shares_no_memory_with_what_it_was_loaded_from() -> None:
    run = one_good_update()
    state = learner_state(run.learner)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    run.learner.load_state_dict(state)
    run.learner.update(1)
    assert changed(state, kept) == []
