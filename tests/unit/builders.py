"""Small real parts that many tests start from: specs, configurations, one in-process run."""

from pathlib import Path
from typing import Any, cast

import torch

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.algorithm import make_algorithm
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.rollout.in_process import InProcessCollector
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.weights import WeightStore


def continuous(*bounds: tuple[float, float]) -> ActionSpec:
    return ActionSpec(
        "continuous", len(bounds), tuple(b[0] for b in bounds), tuple(b[1] for b in bounds)
    )


def discrete(*nvec: int) -> ActionSpec:
    return ActionSpec("discrete", len(nvec), nvec=nvec)


def env_spec(
    num_envs: int = 2,
    obs: dict[str, tuple[tuple[int, ...], str]] | None = None,
    action: ActionSpec | None = None,
    **other: Any,
) -> EnvSpec:
    obs = {"policy": ((3,), "float32")} if obs is None else obs
    values: dict[str, Any] = {"step_dt": 0.0, "max_episode_length": 0, "has_final_obs": True}
    return EnvSpec(
        num_envs=num_envs,
        obs={group: TensorSpec(shape, dtype) for group, (shape, dtype) in obs.items()},
        action=continuous((-1.0, 1.0)) if action is None else action,
        **{**values, **other},
    )


def run_config(num_envs: int = 2, **sections: dict[str, Any]) -> RunConfig:
    """A complete configuration of an in-process run; sections are merged over small defaults."""
    base: dict[str, dict[str, Any]] = {
        "experiment": {"seed": 3, "device": "cpu", "output_dir": "."},
        "env": {"id": "Pendulum-v1"},
        "rollout": {
            "num_workers": 0,
            "envs_per_worker": num_envs,
            "steps_per_env": 8,
            "max_policy_lag": 0,
        },
        "policy": {"hidden_dims": [16, 16]},
    }
    for section, values in sections.items():
        base[section] = {**base.get(section, {}), **values}
    config = load_run_config(base)
    complete(config, num_envs, [])
    return config


class InProcessRun:
    """Learner and collector wired as the runner does at W = 0, without its directory."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.source = config, InProcessCollector(config)
        spec = self.source.build(config, Path("."), None, 0)
        device = torch.device(config.experiment.device)
        # A PPO, unless the configuration says otherwise.
        self.learner = cast("PPO", make_algorithm(config, spec, device))
        self.learner.capture()
        policy = self.learner.policy
        layout = SlotLayout.of(spec, config.rollout.steps_per_env, policy)
        self.weights: WeightStore = self.source.attach(layout, policy.flat.numel(), device)
        self._publish(0)

    def _publish(self, version: int) -> None:
        self.learner.publish(self.weights, version)
        self.source.announce(version)
        self.source.grant(version, version, save_env_state=False)

    def collect(self, iteration: int) -> None:
        """Collect and load a rollout; the learner's batch may be edited before `update`."""
        self.learner.load(self.source.gather(iteration))

    def update(self, iteration: int) -> dict[str, float]:
        metrics = self.learner.update(iteration)
        self.source.release(iteration)
        self._publish(iteration + 1)
        return metrics


def learner_state(learner: PPO) -> dict[str, torch.Tensor]:
    """A copy of everything the learner goes on from."""
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not bit-equal, or are on one side only."""
    names = before.keys() | after.keys()
    return sorted(
        n
        for n in names
        if n not in before or n not in after or not torch.equal(before[n], after[n])
    )
