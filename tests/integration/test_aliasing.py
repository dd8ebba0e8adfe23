"""Nothing in a rollout is an alias of a buffer that the environment rewrites in place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, StepResult, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.rollout import collector
from isaac_hydra_ext.rollout.in_process import InProcessCollector
from isaac_hydra_ext.rollout.layout import SlotLayout

T, B, ROLLOUTS = 6, 3, 4


class RewritingEnv:
    """Says in every buffer which step it is, and reuses every buffer in the next one."""

    def __init__(self) -> None:
        self.spec = EnvSpec(
            B, {"policy": TensorSpec((2,), "float32")},
            ActionSpec("continuous", 1, (-1.0,), (1.0,)), 0.0, 0, has_final_obs=True,
        )  # fmt: skip
        self.steps = 0
        self.obs = torch.zeros(B, 2)
        self.final = torch.zeros(B, 2)
        self.reward = torch.zeros(B)
        self.terminated = torch.zeros(B, dtype=torch.bool)
        self.truncated = torch.zeros(B, dtype=torch.bool)

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        return {"policy": self.obs}

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        self.steps += 1
        actions_BA.fill_(float("nan"))  # even the action handed over is the env's to spoil
        self.obs.fill_(self.steps)
        self.final.fill_(-self.steps)
        self.reward.fill_(self.steps)
        self.terminated.fill_(self.steps % 3 == 0)
        self.truncated.fill_(self.steps % 2 == 0)
        return StepResult(
            {"policy": self.obs}, self.reward, self.terminated, self.truncated,
            {"policy": self.final}, {},
        )  # fmt: skip

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        return False

    def state_dict(self) -> None:
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        raise AssertionError

    def close(self) -> None:
        pass


def _config() -> RunConfig:
    config = load_run_config(
        {
            "env": {"kind": "gym", "id": "Pendulum-v1"},
            "rollout": {"num_workers": 0, "envs_per_worker": B, "steps_per_env": T},
        }
    )
    complete(config, B, [])
    return config


def test_every_step_keeps_its_own_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(collector, "make_env", lambda *arguments: RewritingEnv())
    config = _config()
    source = InProcessCollector(config)
    spec = source.build(config, tmp_path, None, 0)
    weights = source.attach(
        SlotLayout(spec, T, torch.float32),
        source.collector.policy.flat.numel(),
        torch.device("cpu"),
    )
    weights.publish(0, source.collector.policy.flat)
    source.announce(0)
    batch = RolloutBatch(spec, 1, T, torch.float32, torch.device("cpu"))
    for k in range(ROLLOUTS):
        source.grant(0, k, save_env_state=False)
        batch.load(source.gather(k))
        source.release(k)
        step = torch.arange(k * T, k * T + T + 1, dtype=torch.float32)
        torch.testing.assert_close(batch.obs["policy"], step[:, None, None].expand(T + 1, B, 2))
        torch.testing.assert_close(batch.reward_TN, step[1:, None].expand(T, B))
        assert torch.equal(batch.terminated_TN[:, 0], step[1:] % 3 == 0)
        assert torch.equal(batch.truncated_TN[:, 0], step[1:] % 2 == 0)
        assert torch.isfinite(batch.action_TNA).all()
        assert torch.isfinite(batch.behavior_log_prob_TN).all()
        cut_off = [t for t in range(T) if step[t + 1] % 2 == 0 and step[t + 1] % 3 != 0]
        assert batch.final_step.tolist() == [t * B + b for t in cut_off for b in range(B)]
        expected = torch.tensor([[-step[t + 1].item()] * 2 for t in cut_off for _ in range(B)])
        torch.testing.assert_close(batch.final_obs["policy"], expected)
