"""At lag 0 a policy with memory learns what synchronous PPO does that walks through each env."""

import pytest
import torch
from reference_ppo import ReferencePPO, Rollout, Settings
from torch import nn
from unit.builders import InProcessRun, run_config

from isaac_hydra_ext.models.recurrent import RecurrentActorCritic, RecurrentNetwork
from isaac_hydra_ext.system.seeding import Stream, make_generator

T, ENVS, MINIBATCHES, EPOCHS = 70, 4, 2, 2
AFTER = 0.5  # added to the step of an observation that ends an episode


class Walker(nn.Module):
    """A memory and a head of their own weights, one env and one step at a time."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        lstm = network.memory
        self.cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size)
        for name, p in self.cell.named_parameters():
            p.data.copy_(getattr(lstm, f"{name}_l0").data)
        self.head = nn.Sequential(
            *(
                nn.Linear(layer.in_features, layer.out_features)
                if isinstance(layer, nn.Linear)
                else nn.Tanh()
                for layer in network.head.children()
            )
        )
        self.head.load_state_dict({k: v.clone() for k, v in network.head.state_dict().items()})


class RecurrentReference(ReferencePPO):
    """Is given observations with their step and their env as two more numbers."""

    def begin(self, states: dict[str, torch.Tensor], done_TN: torch.Tensor) -> None:
        self.states, self.done_TN = states, done_TN

    def normalize(self, obs: torch.Tensor) -> torch.Tensor:
        if not self.seen:
            return obs
        seen = torch.cat(self.seen)[:, :-2].double()
        return (obs - seen.mean(0).float()) / (seen.std(0, correction=0) + 1e-2).float()

    def walk(self, walker: nn.Module, role: str, rows: torch.Tensor) -> torch.Tensor:
        assert isinstance(walker, Walker)
        flat = rows.reshape(-1, rows.shape[-1])
        x = self.normalize(flat[:, :-2])
        outputs: dict[int, torch.Tensor] = {}
        for n in flat[:, -1].unique().tolist():
            h, c = (self.states[f"{role}_{part}"][int(n), :1] for part in "hc")
            mine = (flat[:, -1] == n).nonzero().squeeze(1).tolist()
            for row in sorted(mine, key=lambda row: float(flat[row, -2])):
                step = float(flat[row, -2])
                if step % 1:  # what ends the episode: nothing goes on from it
                    outputs[row] = walker.cell(x[row : row + 1], (h, c))[0]
                    continue
                if step > 0 and self.done_TN[int(step) - 1, int(n)]:
                    h, c = torch.zeros_like(h), torch.zeros_like(c)
                h, c = walker.cell(x[row : row + 1], (h, c))
                outputs[row] = h
        out = walker.head(torch.cat([outputs[row] for row in range(len(flat))]))
        return out.view(*rows.shape[:-1], -1)

    def policy(self, obs: torch.Tensor) -> torch.distributions.Normal:
        mean = self.walk(self.actor, "actor", obs)
        return torch.distributions.Normal(mean, self.std.expand_as(mean))

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        if obs.shape[0] == 1 and obs.dim() == 2:  # a final one, behind the steps before it
            n, last = int(obs[0, -1]), int(obs[0, -2])
            obs = torch.cat([self.obs[: last + 1, n], obs])
            return self.walk(self.critic, "critic", obs).squeeze(-1)[-1:]
        return self.walk(self.critic, "critic", obs).squeeze(-1)


def rollout_of(run: InProcessRun) -> Rollout:
    batch = run.learner.batch
    steps = torch.arange(T + 1.0).view(-1, 1, 1).expand(T + 1, ENVS, 1)
    envs = torch.arange(float(ENVS)).view(1, -1, 1).expand(T + 1, ENVS, 1)
    finals = []
    for step, obs in zip(batch.final_step.tolist(), batch.final_obs["policy"], strict=True):
        t, n = divmod(step, ENVS)
        finals.append((t, n, torch.cat([obs, torch.tensor([t + AFTER, float(n)])])))
    obs = torch.cat([batch.obs["policy"], steps, envs], dim=-1)
    return Rollout(
        obs, batch.action_TNA.clone(), batch.behavior_log_prob_TN.clone(), batch.reward_TN.clone(),
        batch.terminated_TN.clone(), batch.truncated_TN.clone(), finals,
    )  # fmt: skip


def test_the_update_is_synchronous_ppo_that_walks_through_each_env() -> None:
    run = InProcessRun(
        run_config(
            ENVS,
            rollout={"steps_per_env": T},
            policy={
                "recurrent": {"kind": "lstm", "hidden": 8},
                "hidden_dims": [8],
                "activation": "tanh",
            },
            ppo={"num_mini_batches": MINIBATCHES, "update_epochs": EPOCHS, "value_clip": 5.0},
        )
    )
    policy, ppo, finals = run.learner.policy, run.config.ppo, 0
    assert isinstance(policy, RecurrentActorCritic) and isinstance(policy.std, torch.Tensor)
    assert ppo.value_clip is not None
    reference = RecurrentReference(
        Walker(policy.actor), Walker(policy.critic), policy.std.detach(),
        Settings(
            ppo.gamma, ppo.lam, ppo.clip, ppo.value_clip, ppo.entropy_coef, ppo.value_coef,
            ppo.max_grad_norm, ppo.lr, ppo.desired_kl, EPOCHS, ppo.batch_size,
        ),
    )  # fmt: skip
    for k in range(3):
        run.collect(k)
        raw, batch = rollout_of(run), run.learner.batch
        reference.obs = raw.obs
        states = {name: x.clone() for name, x in batch.state.items()}
        reference.begin(states, raw.terminated | raw.truncated)
        finals += len(raw.finals)
        generator = make_generator(run.config.experiment.seed, Stream.SHUFFLE, k)
        orders = []
        for _ in range(EPOCHS):
            columns = torch.randperm(ENVS, generator=generator).tensor_split(MINIBATCHES)
            firsts = torch.arange(0, T * ENVS, ENVS).unsqueeze(1)
            orders.append(torch.cat([(firsts + taken).flatten() for taken in columns]))
        metrics = run.update(k)
        expected = reference.update(raw, orders)
        for name, tag in (("surrogate", "Loss/surrogate"), ("value", "Loss/value"),
                          ("entropy", "Loss/entropy"), ("kl", "Policy/kl")):  # fmt: skip
            assert metrics[tag] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), tag
        for ours, theirs in ((policy.actor, reference.actor), (policy.critic, reference.critic)):
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(p.data.view_as(q), q.data, atol=5e-5, rtol=0)
    assert finals >= ENVS, "the comparison should cover episodes that end inside"
