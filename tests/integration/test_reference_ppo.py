"""At lag 0 the learner is synchronous PPO: same losses, gradients and weights."""

from pathlib import Path

import pytest
import torch
from reference_ppo import ReferencePPO, Rollout, Settings
from torch import nn

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system.seeding import Stream, make_generator
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.pool import WorkerPool

ITERATIONS = 3


def _config() -> RunConfig:
    config = load_run_config(
        {
            "env": {"kind": "gym", "id": "Pendulum-v1"},
            # 60 steps and random episode times: some of the 200-step episodes are cut off inside.
            "rollout": {
                "num_workers": 2,
                "envs_per_worker": 8,
                "steps_per_env": 60,
                "max_policy_lag": 0,
            },
            # 960 samples in minibatches of 250: the last one of an epoch is ragged.
            "ppo": {"batch_size": 250, "update_epochs": 3, "gamma": 0.9, "value_clip": 5.0},
            "policy": {"hidden_dims": [32, 32], "activation": "tanh"},
        }
    )
    complete(config, 16, [])
    return config


def _mlp_like(source: nn.Sequential) -> nn.Sequential:
    """Rebuild linear layers and tanh from the weights alone."""
    layers: list[nn.Module] = []
    for linear in (layer for layer in source if isinstance(layer, nn.Linear)):
        copy = nn.Linear(linear.in_features, linear.out_features)
        copy.load_state_dict({k: v.clone() for k, v in linear.state_dict().items()})
        layers += [copy, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _raw(slots: list[Slot]) -> Rollout:
    """Copy what lies in the shared buffer, workers side by side."""
    finals, envs = [], slots[0].reward_TB.shape[1]
    for w, slot in enumerate(slots):
        assert slot.final_index_C2 is not None
        for row in range(int(slot.header["final_count"][0])):
            t, b = slot.final_index_C2[row].tolist()
            finals.append((t, w * envs + b, slot.final_obs["policy"][row].clone()))
    return Rollout(
        torch.cat([s.obs["policy"] for s in slots], dim=1),
        torch.cat([s.action_TBA for s in slots], dim=1),
        torch.cat([s.behavior_log_prob_TB for s in slots], dim=1),
        torch.cat([s.reward_TB for s in slots], dim=1),
        torch.cat([s.terminated_TB for s in slots], dim=1),
        torch.cat([s.truncated_TB for s in slots], dim=1),
        finals,
    )


def test_the_update_is_synchronous_ppo(tmp_path: Path) -> None:
    config, ppo = _config(), _config().ppo
    pool = WorkerPool(config, StopSignals())
    try:
        spec = pool.build(config, tmp_path, None, 0)
        learner = PPO(config, spec, torch.device("cpu"))
        policy = learner.policy
        assert policy.std is not None
        assert ppo.value_clip is not None
        reference = ReferencePPO(
            _mlp_like(policy.actor),
            _mlp_like(policy.critic),
            policy.std.detach(),
            Settings(
                ppo.gamma, ppo.lam, ppo.clip, ppo.value_clip, ppo.entropy_coef, ppo.value_coef,
                ppo.max_grad_norm, ppo.lr, ppo.desired_kl, ppo.update_epochs, ppo.batch_size,
            ),
        )  # fmt: skip
        layout = SlotLayout.of(spec, config.rollout.steps_per_env, policy)
        weights = pool.attach(layout, policy.flat.numel(), torch.device("cpu"))
        truncated = 0
        for k in range(ITERATIONS):
            weights.publish(k, policy.flat)
            pool.announce(k)
            pool.grant(k, k, save_env_state=False)
            slots = pool.gather(k)
            raw = _raw(slots)
            truncated += len(raw.finals)
            learner.load(slots)
            pool.release(k)
            metrics = learner.update(k)

            generator = make_generator(config.experiment.seed, Stream.SHUFFLE, k)
            samples = raw.reward.numel()
            orders = [torch.randperm(samples, generator=generator) for _ in range(3)]
            expected = reference.update(raw, orders)

            assert metrics["Async/ratio_deviation"] <= 1e-4
            for name, tag in (("surrogate", "Loss/surrogate"), ("value", "Loss/value"),
                              ("entropy", "Loss/entropy"), ("kl", "Policy/kl")):  # fmt: skip
                assert metrics[tag] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), tag
            ours = list(policy.parameters())
            assert len(ours) == len(reference.parameters)
            gradients = learner._epochs.optimizer._reduced[: learner.policy.num_params].split(
                [p.numel() for p in ours]
            )
            gradient_of = {id(p): g.view(p.shape) for p, g in zip(ours, gradients, strict=True)}
            theirs = dict(
                zip(("actor", "critic"), (reference.actor, reference.critic), strict=True)
            )
            for part, module in theirs.items():
                mine = getattr(policy, part)
                for p, q in zip(mine.parameters(), module.parameters(), strict=True):
                    torch.testing.assert_close(gradient_of[id(p)], q.grad, atol=1e-5, rtol=1e-3)
                    torch.testing.assert_close(p.data, q.data, atol=1e-5, rtol=0)
            torch.testing.assert_close(policy.std.data, reference.std.data, atol=1e-5, rtol=0)
        assert truncated > 0, "the comparison should cover truncated episodes"
        assert reference.lr != ppo.lr, "and the adaptive learning rate"
        assert float(learner.lr) == pytest.approx(reference.lr, rel=1e-6)
    finally:
        pool.close()
