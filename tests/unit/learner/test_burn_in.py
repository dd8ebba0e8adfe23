"""`rollout.burn_in`: the state at a rollout's start is what the learner's own weights remember."""

from typing import Any

import pytest
import torch

from isaac_hydra_ext.config.policy_checks import check_burn_in
from isaac_hydra_ext.errors import ConfigError, SharedMemoryError
from isaac_hydra_ext.learner.ppo.burn_in import burn_in
from isaac_hydra_ext.models.past import KNOWN, PAST
from isaac_hydra_ext.models.policy import Policy, Sequences, State, restarted
from isaac_hydra_ext.rollout import memory as memory_budget
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import InProcessRun, env_spec, run_config

T, B = 24, 5  # CartPole's episodes are about as long


def make_run(kind: str = "lstm", K: int = 10, **settings: Any) -> InProcessRun:
    memory = {"recurrent": {"kind": kind, "hidden": 8, "layers": 2}, "hidden_dims": [8]}
    return InProcessRun(
        run_config(
            B,
            env={"id": "CartPole-v1", **settings.get("env", {})},
            rollout={"steps_per_env": T, "burn_in": K},
            policy={**memory, **settings.get("policy", {})},
            ppo={"num_mini_batches": 2, "update_epochs": 2},
        )
    )


def walked(policy: Policy, slot: Slot, state: State, steps: range) -> State:
    """What a policy remembers after these steps of a rollout, walking through them."""
    fresh, fresh_critic = policy.initial_state(B), policy.initial_critic_state(B)
    none_1B = torch.zeros(1, B, dtype=torch.bool)
    for t in steps:
        obs = {group: x[t] for group, x in slot.obs.items()}
        ended_B = slot.terminated_TB[t] | slot.truncated_TB[t]
        with torch.no_grad():
            actor = policy.act(obs, {name: state[name] for name in fresh}, None).state
        columns = Sequences({name: state[name] for name in fresh_critic}, none_1B)
        (critic,) = policy.critic_states(obs, columns)
        state = {
            **restarted(actor, fresh, ended_B), **restarted(critic, fresh_critic, ended_B)
        }  # fmt: skip
    return state


def memory_of(slot: Slot) -> State:
    return {name: x.clone() for name, x in slot.state.items() if not name.startswith(PAST)}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("K", [1, 10, T])
def test_unchanged_weights_remember_what_was_acted_with(kind: str, K: int) -> None:
    run, ends = make_run(kind, K), 0
    for k in range(3):
        run.collect(k)
        acted_with = {name: x.clone() for name, x in run.learner.batch.state.items()}
        burn_in(run.learner.policy, run.learner.batch, "fp32")
        for name, x in run.learner.batch.state.items():
            assert torch.equal(x, acted_with[name]), (k, name)
        ends += int(run.learner.batch.terminated_TN[-K:].sum())
        run.source.release(k)
        run._publish(k + 1)
    assert ends >= 5 or K == 1
    assert run.update(2)["Async/ratio_deviation"] <= 1e-4


def test_pictures_are_walked_through_too() -> None:
    encoder = {"channels": [4], "kernel": [4], "stride": [2]}
    catch = {"id": "TestCatch-v0", "imports": ["tests.integration.catch_env"]}
    run = make_run(env=catch, policy={"encoders": {"policy": encoder}})
    for k in range(2):
        run.collect(k)
        batch = run.learner.batch
        acted_with = {name: x.clone() for name, x in batch.state.items()}
        burn_in(run.learner.policy, batch, "fp32")
        for name, x in batch.state.items():
            torch.testing.assert_close(x, acted_with[name], atol=1e-6, rtol=0)
        run.source.release(k)
        run._publish(k + 1)
    assert batch.past["past/obs/policy"].dtype == torch.uint8
    assert run.update(1)["Loss/undone"] == 0


@pytest.mark.parametrize(("kind", "K"), [("lstm", 10), ("gru", T)])
def test_newer_weights_remember_what_they_make_of_the_last_steps(kind: str, K: int) -> None:
    run = make_run(kind, K)
    (slot,) = run.source.gather(0)
    acted = run.source.collector.policy
    before = walked(acted, slot, memory_of(slot), range(T - K))
    run.learner.load([slot])
    run.update(0)
    expected = walked(run.learner.policy, slot, before, range(T - K, T))
    run.collect(1)
    acted_with = {name: x.clone() for name, x in run.learner.batch.state.items()}
    for _ in range(2):  # as a recorded update is warmed up
        burn_in(run.learner.policy, run.learner.batch, "fp32")
        for name, x in run.learner.batch.state.items():
            torch.testing.assert_close(x, expected[name], atol=1e-6, rtol=0)
            assert (x - acted_with[name]).abs().max() > 1e-3
    assert run.update(1)["Loss/undone"] == 0


def test_an_env_without_a_past_keeps_what_it_was_acted_with() -> None:
    run = make_run()
    (slot,) = run.source.gather(0)
    assert not slot.state[KNOWN].any()
    run.source.collector._restart(slot, [1])  # as after a NaN
    run.learner.load([slot])
    run.update(0)
    run.collect(1)
    batch = run.learner.batch
    assert batch.past[KNOWN].tolist() == [True, False, *[True] * (B - 2)]
    burn_in(run.learner.policy, batch, "fp32")
    for x in batch.state.values():
        assert not x[1].any() and x[0].any()


def test_an_env_that_is_left_out_has_no_past_either() -> None:
    run = make_run()
    for k in range(2):
        (slot,) = run.source.gather(k)
        slot.dropped_B[1] = k == 1
        run.learner.load([slot])
        if k == 1:
            kept = [0, 2, 3, 4]
            for name, x in run.learner.batch.past.items():
                assert torch.equal(x, slot.state[name][kept])
        assert run.update(k)["Loss/undone"] == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy": {}}, "rollout.burn_in=4: .*set policy.recurrent.kind too"),
        ({"rollout": {"burn_in": 9}}, "rollout.burn_in=9: more than the 8 steps"),
        ({"rollout": {"burn_in": -1}}, "rollout.burn_in=-1: must be at least 0"),
        ({"rollout": {"burn_in": 4, "frame_stack": 2}, "policy": {"encoders": {"policy": {}},
          "recurrent": {"kind": "gru"}}}, "rollout.frame_stack=2: policy.recurrent remembers"),
    ],
)  # fmt: skip
def test_what_cannot_be_burned_in_is_refused(settings: dict[str, Any], said: str) -> None:
    sections = {"rollout": {"burn_in": 4}, "policy": {"recurrent": {"kind": "gru"}}, **settings}
    with pytest.raises(ConfigError, match=said) as refused:
        run_config(**sections)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["policy", "algorithm"])
def test_what_a_package_brings_is_refused(key: str) -> None:
    config = run_config(rollout={"burn_in": 4}, policy={"recurrent": {"kind": "gru"}})
    getattr(config, key).kind = "theirs"
    with pytest.raises(ConfigError, match=f"rollout.burn_in=4: with {key}.kind=.* alone, not thei"):
        check_burn_in(config)


def test_the_memory_check_counts_memories_and_their_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "available_memory", lambda: 2**30)
    sizes = []
    for rollout in ({}, {"burn_in": 0}, {"burn_in": 8}):
        memory = {"recurrent": {"kind": "lstm", "hidden": 256}} if rollout else {}
        config = run_config(1000, rollout=rollout, policy=memory)
        sizes.append(memory_budget.rollout_bytes(config, env_spec(1000), "cpu")[0]["cpu"])
    state = 4 * 256 * 4 * 1000  # h and c of actor and critic
    assert sizes[1] == pytest.approx(sizes[0] + 2 * state, rel=0.01)  # of a slot and its copy
    assert sizes[2] == pytest.approx(sizes[1] + 3 * (state + 8 * 3 * 4 * 1000), rel=0.01)
    config = run_config(80_000, rollout={"burn_in": 8}, policy=memory)
    with pytest.raises(SharedMemoryError, match="burn-in = 8"):
        memory_budget.check_memory(config, env_spec(80_000), True)
