"""Learning with memory: whole columns, each step with the state that it was acted with."""

import pytest
import torch

from isaac_hydra_ext.errors import ConfigError, LearnerError
from isaac_hydra_ext.learner.ppo.preparation import _values
from isaac_hydra_ext.learner.terms import Term
from isaac_hydra_ext.learner.trained_terms import OWN
from isaac_hydra_ext.models.policy import Policy, Samples
from isaac_hydra_ext.models.recurrent import RecurrentActorCritic
from unit.builders import InProcessRun, changed, learner_state, run_config


def make_run(kind: str = "lstm", envs: int = 5, **ppo: object) -> InProcessRun:
    # Episodes of 200 steps that began at random times: each env's ends once in three rollouts.
    return InProcessRun(
        run_config(
            envs,
            rollout={"steps_per_env": 70},
            policy={"recurrent": {"kind": kind, "hidden": 8, "layers": 2}, "hidden_dims": [8]},
            ppo={"num_mini_batches": 2, "update_epochs": 2, "value_clip": None, **ppo},
        )
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_at_lag_0_every_ratio_is_1_whatever_ends_inside(kind: str) -> None:
    run, ends = make_run(kind), 0
    for k in range(3):
        run.collect(k)
        ends += int(run.learner.batch.truncated_TN.sum())
        assert run.update(k)["Async/ratio_deviation"] <= 1e-4
    assert ends >= 5
    assert all(x.abs().max() > 0 for x in run.learner.batch.state.values())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_values_are_those_of_an_env_by_itself(kind: str) -> None:
    run = make_run(kind, envs=3)
    run.collect(0)
    run.update(0)
    run.collect(1)
    run.update(1)
    run.collect(2)
    batch, policy = run.learner.batch, run.learner.policy
    assert isinstance(policy, RecurrentActorCritic)
    raw_T1N, _, final_TN = _values(policy, batch, run.config.ppo)
    names = policy.critic.names("critic")
    finals = dict(zip(batch.final_step.tolist(), batch.final_obs["policy"], strict=True))
    assert finals
    memory, checked = policy.critic.memory, 0

    def value(obs: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[float, object]:
        x = policy.critic_input({"policy": obs[None]})[None]
        out, after = memory(x, state if kind == "lstm" else state[0])
        return float(policy.critic.head(out[0, 0])), after if kind == "lstm" else (after,)

    with torch.no_grad():
        for n in range(3):
            state = tuple(batch.state[name][n].unsqueeze(1) for name in names)
            for t in range(71):
                found, after = value(batch.obs["policy"][t, n], state)
                assert float(raw_T1N[t, n]) == pytest.approx(found, abs=1e-5)
                state = after  # type: ignore[assignment]
                if t < 70 and (obs := finals.get(t * 3 + n)) is not None:
                    assert float(final_TN[t, n]) == pytest.approx(value(obs, state)[0], abs=1e-5)
                    state = tuple(torch.zeros_like(part) for part in state)
                    checked += 1
    assert checked == len(finals)


def test_minibatches_are_whole_columns_and_all_of_them() -> None:
    run = make_run(envs=5)
    run.collect(0)
    sequences = run.learner.batch.sequences(70)
    assert sequences is not None
    order = torch.tensor([3, 0, 4, 1, 2])
    minibatches = run.learner._epochs._minibatches(order, sequences)
    for (rows, taken), columns in zip(minibatches, ([3, 0, 4], [1, 2]), strict=True):
        assert taken is not None
        assert rows.tolist() == [t * 5 + n for t in range(70) for n in columns]
        for name, x in taken.state.items():
            assert torch.equal(x, sequences.state[name][columns])
        assert torch.equal(taken.starts_TC, sequences.starts_TC[:, columns])


def test_an_env_that_is_left_out_is_no_column() -> None:
    run = make_run(envs=5)
    for k in range(2):
        (slot,) = run.source.gather(k)
        slot.dropped_B[1] = k == 1
        run.learner.load([slot])
        if k == 1:
            kept = [0, 2, 3, 4]
            for name, x in run.learner.batch.state.items():
                assert torch.equal(x, slot.state[name][kept])
        metrics = run.update(k)
        assert metrics["Loss/undone"] == 0 and metrics["Async/ratio_deviation"] <= 1e-4


def test_an_update_that_is_undone_leaves_every_bit() -> None:
    run = make_run()
    run.collect(0)
    before = learner_state(run.learner)
    run.learner.batch.reward_TN[3, 2] = torch.nan
    assert run.update(0)["Loss/undone"] == 1
    assert not changed(before, learner_state(run.learner))


@pytest.mark.parametrize("size", [{"num_mini_batches": 6}, {"batch_size": 69}])
def test_more_minibatches_than_envs_are_refused(size: dict[str, int]) -> None:
    policy = {"recurrent": {"kind": "gru"}}
    with pytest.raises(ConfigError) as refused:
        run_config(5, rollout={"steps_per_env": 70}, policy=policy, ppo=size)
    (line,) = str(refused.value).splitlines()
    assert f"ppo.num_mini_batches={6}" in line and "more than the 5 envs" in line


def test_mirrored_samples_are_refused() -> None:
    mirror = {"obs": {"policy": [1, -2, -3]}, "action": [-1]}
    symmetry = {"use_mirror_loss": True, "mirrors": {"left": mirror}}
    with pytest.raises(ConfigError, match="policy.recurrent learns from whole columns"):
        run_config(policy={"recurrent": {"kind": "gru"}}, ppo={"symmetry": symmetry})


class PullToZero(Term):
    """Asks the policy about samples, as a package's loss does that knows of no memory."""

    learning_rate = 0.0

    def loss(self, policy: Policy, samples: Samples) -> torch.Tensor:
        return policy.action_params(samples).square().mean()


def test_a_loss_that_knows_no_sequences_ends_the_run_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(OWN, "rnd", lambda *_: PullToZero())
    run = make_run(terms={"rnd": {}})
    run.collect(0)
    with pytest.raises(LearnerError) as ended:
        run.update(0)
    (line,) = str(ended.value).splitlines()
    assert line.startswith("policy.recurrent: ") and "a loss of ppo.terms" in line


def test_vtrace_and_clipped_values_go_with_it() -> None:
    run = make_run("gru", advantages="vtrace", value_clip=0.2)
    for k in range(2):
        run.collect(k)
        assert run.update(k)["Loss/undone"] == 0
