"""Networks with memory: a step worked by hand, and columns in which episodes begin."""

import math

import pytest
import torch
from torch import nn

from isaac_hydra_ext.config.policy_schema import PolicyConfig, RecurrentConfig
from isaac_hydra_ext.models import sequence
from isaac_hydra_ext.models.policy import Sequences
from isaac_hydra_ext.models.recurrent import RecurrentActorCritic
from unit.builders import env_spec


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_two_steps_of_an_lstm_by_hand() -> None:
    lstm = nn.LSTM(1, 1)
    for weight, numbers in (
        (lstm.weight_ih_l0, [0.5, -1.0, 2.0, 0.25]),  # i, f, g, o
        (lstm.weight_hh_l0, [1.0, 0.5, -0.5, 2.0]),
        (lstm.bias_ih_l0, [0.1, 0.2, 0.3, 0.4]),
        (lstm.bias_hh_l0, [0.0, 0.1, 0.0, -0.4]),
    ):
        weight.data.copy_(torch.tensor(numbers).view_as(weight))
    h, c, expected = 0.0, 0.0, []
    for x in (1.0, -2.0):
        i = sigmoid(0.5 * x + 1.0 * h + 0.1)
        f = sigmoid(-1.0 * x + 0.5 * h + 0.3)
        g = math.tanh(2.0 * x - 0.5 * h + 0.3)
        o = sigmoid(0.25 * x + 2.0 * h)
        c = f * c + i * g
        h = o * math.tanh(c)
        expected.append(h)
    assert expected[0] == pytest.approx(0.56218 * math.tanh(0.64566 * 0.98010), abs=1e-4)
    x_TCI = torch.tensor([1.0, -2.0]).view(2, 1, 1)
    nothing = torch.zeros(1, 1, 1)
    for run in (sequence.run, sequence.run_masked):
        out_TCH = run(lstm, x_TCI, (nothing, nothing), torch.zeros(2, 1, dtype=torch.bool))
        assert out_TCH.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers", [1, 2])
def test_columns_are_steps_and_so_are_their_gradients(kind: type, layers: int) -> None:
    torch.manual_seed(1)
    T, C, H = 9, 4, 7
    rnn, x_TCI = kind(5, H, layers), torch.randn(T, C, 5, requires_grad=True)
    state = tuple(torch.randn(C, layers, H) for _ in range(2 if kind is nn.LSTM else 1))
    starts_TC = torch.rand(T, C) < 0.2
    starts_TC[0, 1] = True
    weight_TCH = torch.randn(T, C, H)

    def step_by_step(*_: object) -> torch.Tensor:
        before, outputs = state, []
        for t in range(T):
            before = sequence.step(rnn, x_TCI[t], sequence.kept(before, starts_TC[t]))
            outputs.append(sequence.output(before))
        return torch.stack(outputs)

    found = []
    for run in (step_by_step, sequence.run, sequence.run_masked):
        out_TCH = run(rnn, x_TCI, state, starts_TC)
        gradients = torch.autograd.grad((weight_TCH * out_TCH).sum(), [x_TCI, *rnn.parameters()])
        found.append([out_TCH, *gradients])
    for others in found[1:]:
        for expected, actual in zip(found[0], others, strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_in_bf16_columns_are_nearly_what_they_are(kind: type) -> None:
    torch.manual_seed(2)
    rnn, x_TCI = kind(5, 16), torch.randn(20, 3, 5)
    state = tuple(torch.zeros(3, 1, 16) for _ in range(2 if kind is nn.LSTM else 1))
    starts_TC = torch.rand(20, 3) < 0.1
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out_TCH = sequence.run_masked(rnn, x_TCI, state, starts_TC)
            gradients = torch.autograd.grad(out_TCH.float().sum(), [*rnn.parameters()])
        found.append([out_TCH, *gradients])
    assert found[1][0].dtype == torch.bfloat16
    for exact, rounded in zip(*found, strict=True):
        assert (rounded.float() - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_acting_remembers_what_the_learner_computes(kind: str) -> None:
    spec = env_spec(3, {"policy": ((3,), "float32"), "critic": ((2,), "float32")})
    config = PolicyConfig(hidden_dims=[8], recurrent=RecurrentConfig(kind, 6, 2))
    policy = RecurrentActorCritic(config, spec, 1)
    T, B = 5, 3
    obs = {"policy": torch.randn(T, B, 3), "critic": torch.randn(T, B, 2)}
    state, params, values = policy.initial_state(B), [], []
    for t in range(T):
        acted = policy.act({"policy": obs["policy"][t]}, state, None)
        params.append(acted.params_BP)
        state = acted.state
    starts_TC = torch.zeros(T, B, dtype=torch.bool)
    fresh = {**policy.initial_state(B), **policy.initial_critic_state(B)}
    flat = {group: x.flatten(0, 1) for group, x in obs.items()}
    sequences = Sequences(fresh, starts_TC)
    found = policy.action_params(flat, sequences)
    torch.testing.assert_close(found, torch.cat(params), atol=1e-6, rtol=1e-5)
    for t, after in enumerate(policy.critic_states(flat, sequences)):
        assert after.keys() == policy.initial_critic_state(B).keys()
        values.append(policy.critic.head(after["critic_h"][:, -1]).squeeze(-1))
        assert t < T
    found = policy.raw_value(flat, sequences)
    torch.testing.assert_close(found, torch.cat(values), atol=1e-6, rtol=1e-5)
    # Another memory is other columns: what is remembered matters.
    other = Sequences({name: x + 0.5 for name, x in fresh.items()}, starts_TC)
    assert (policy.raw_value(flat, other) - found).abs().max() > 1e-3


def test_popart_rescales_the_layers_after_the_memory() -> None:
    config = PolicyConfig(normalize_values=True, recurrent=RecurrentConfig("gru", 6))
    policy = RecurrentActorCritic(config, env_spec(), 1)
    fresh = {**policy.initial_state(4), **policy.initial_critic_state(4)}
    sequences = Sequences(fresh, torch.zeros(1, 4, dtype=torch.bool))
    obs = {"policy": torch.zeros(4, 3)}
    before = policy.denormalize_value(policy.raw_value(obs, sequences))
    policy.update_statistics(obs, torch.tensor([100.0, 50.0, 70.0, 90.0]))
    after = policy.denormalize_value(policy.raw_value(obs, sequences))
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_state_in_half_goes_on_in_full(kind: type[nn.RNNBase]) -> None:
    rnn, x_TCI = kind(3, 8), torch.randn(6, 5, 3)
    starts_TC = torch.zeros(6, 5, dtype=torch.bool)
    state = tuple(torch.randn(5, 1, 8).bfloat16() for _ in range(1 + (kind is nn.LSTM)))
    found = sequence.run_masked(rnn, x_TCI, state, starts_TC)
    wanted = sequence.run_masked(rnn, x_TCI, tuple(x.float() for x in state), starts_TC)
    assert torch.equal(found, wanted)
