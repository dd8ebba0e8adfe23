"""Random network distillation, a `Term`: curiosity as a reward. Runs in the learner's process.

A predictor learns what a fixed random network makes of observations; where it is wrong the policy
has seldom been, and is rewarded (Burda et al. 2018; for robots Schwarke et al. 2023). Names,
defaults and formulas are rsl_rl's; statistics change once an iteration, like the policy's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from isaac_hydra_ext.checkpoints.fit import PER_ENV
from isaac_hydra_ext.config.rnd_schema import RndConfig, WeightSchedule, read_rnd
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import ConfigError, did_you_mean
from isaac_hydra_ext.learner.group import Group, OneProcess, combined
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.learner.terms import Term
from isaac_hydra_ext.models.networks import ACTIVATIONS, mlp
from isaac_hydra_ext.models.normalizer import Moments, Normalizer
from isaac_hydra_ext.models.policy import Policy, Samples

GAMMA = 0.99  # of the sum whose std the reward is divided by
STATE = "rnd_state"  # the group that is read unasked


class Rnd(Term):
    """Predictor, target and statistics.

    A step's reward is of the observation that follows it: after an end, the next episode's first.
    """

    def __init__(
        self, config: RndConfig, groups: Sequence[str], spec: EnvSpec, seed: int, device: Any
    ) -> None:
        """Draw both networks from `seed`."""
        self.learning_rate = config.learning_rate
        self._config, self._groups = config, groups
        self._initial_weight = config.weight * (spec.step_dt or 1.0)
        size = sum(spec.obs[group].shape[0] for group in groups)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._predictor = _network(size, config.predictor_hidden_dims, config).to(device)
            self._target = _network(size, config.target_hidden_dims, config).to(device)
        self._target.requires_grad_(False)
        self._normalizer = Normalizer(size).to(device) if config.state_normalization else None
        self._scale = Normalizer(1).to(device) if config.reward_normalization else None
        self._sum_N = torch.zeros(0, device=device)  # discounted, in each env
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._metrics: dict[str, torch.Tensor] = {}
        self._group: Group = OneProcess()

    def begin(self, group: Group, num_envs: int) -> None:
        self._group, self._sum_N = group, self._sum_N.new_zeros(num_envs)

    @torch.no_grad()
    def prepare(self, batch: RolloutBatch) -> Mapping[str, torch.Tensor]:
        """Add the intrinsic rewards to the env's."""
        T, N = batch.reward_TN.shape
        x = self._inputs({group: batch.obs[group][1:].flatten(0, 1) for group in self._groups})
        if self._normalizer is not None:
            self._normalizer.update(x, self._combine)
        reward_TN = self._error(x).norm(dim=1).view(T, N)
        if self._scale is not None:
            reward_TN = self._scaled(reward_TN)
        weight_T = self._weights(T)
        reward_TN = weight_T.unsqueeze(1) * reward_TN
        self._metrics = {
            "Rnd/mean_extrinsic_reward": batch.reward_TN.mean(),
            "Rnd/mean_intrinsic_reward": reward_TN.mean(),
            "Rnd/weight": weight_T[-1],
        }
        batch.reward_TN.add_(reward_TN)
        return {}

    def loss(self, policy: Policy, samples: Samples) -> torch.Tensor:
        """Return the predictor's mean square error."""
        return self._error(self._inputs(samples)).square().mean()

    def metrics(self) -> Mapping[str, torch.Tensor]:
        return self._metrics

    def parameters(self) -> Sequence[nn.Parameter]:
        return list(self._predictor.parameters())

    def state(self) -> Mapping[str, torch.Tensor]:
        state = {f"target.{name}": p.data for name, p in self._target.named_parameters()}
        state["env_steps"] = self._step
        if self._normalizer is not None:
            state |= {f"state.{name}": x for name, x in self._normalizer.named_buffers()}
        if self._scale is not None:
            state |= {f"reward.{name}": x for name, x in self._scale.named_buffers()}
            state[f"sum{PER_ENV}"] = self._sum_N
        return state

    def _inputs(self, obs: Samples) -> torch.Tensor:
        return torch.cat([obs[group].float() for group in self._groups], dim=1)

    def _error(self, x: torch.Tensor) -> torch.Tensor:
        if self._normalizer is not None:
            x = self._normalizer(x)
        return self._predictor(x) - self._target(x)

    def _combine(self, rows: int, mean: torch.Tensor, var: torch.Tensor) -> Moments:
        return combined(self._group, rows, mean, var)

    def _scaled(self, reward_TN: torch.Tensor) -> torch.Tensor:
        """Divide by the std of R_t = 0.99 R_{t-1} + r_t over all envs and steps so far.

        Pathak's reward normalisation (Burda et al. 2019, section 2.1). Of an iteration from which
        an env is left out nobody knows whose sums they were: they begin with the mean.
        """
        assert self._scale is not None
        whole = reward_TN.shape[1] == self._sum_N.shape[0]
        running_N = self._sum_N if whole else self._sum_N.mean().expand(reward_TN.shape[1])
        sums = []
        for reward_N in reward_TN:
            running_N = GAMMA * running_N + reward_N
            sums.append(running_N)
        if whole:
            self._sum_N.copy_(running_N)
        self._scale.update(torch.cat(sums).unsqueeze(1), self._combine)
        std = self._scale.exact_var.sqrt().float()
        return reward_TN / torch.where(std > 0, std, 1.0)

    def _weights(self, T: int) -> torch.Tensor:
        """Return each step's weight [T], and count the steps."""
        step_T = self._step + torch.arange(1, T + 1, device=self._step.device)
        self._step.add_(T)
        return scheduled(self._config.weight_schedule, self._initial_weight, step_T)


def scheduled(schedule: WeightSchedule, weight: float, step_T: torch.Tensor) -> torch.Tensor:
    """Return the weights at steps [T], which count from 1."""
    initial_T = torch.full_like(step_T, weight, dtype=torch.float32)
    first, last, final = schedule.initial_step, schedule.final_step, schedule.final_value
    if schedule.mode == "step":
        return torch.where(step_T < last, initial_T, final)
    if schedule.mode == "linear":
        share_T = ((step_T - first).float() / (last - first)).clamp(0.0, 1.0)
        return initial_T + (final - weight) * share_T
    return initial_T


def _network(size: int, hidden_dims: Sequence[int], config: RndConfig) -> nn.Sequential:
    dims = [size if dim == -1 else dim for dim in hidden_dims]
    return mlp([size, *dims, config.num_outputs], ACTIVATIONS[config.activation])


def make_rnd(
    settings: Mapping[str, Any], policy: Policy, spec: EnvSpec, seed: int, device: torch.device
) -> Term:
    """Build the term; arguments as of every term's `make`.

    Raises:
        ConfigError: A group that the env does not have, or that is no vector.
    """
    config = read_rnd(settings).ppo.terms.rnd
    asked = config.obs_groups or ([STATE] if STATE in spec.obs else policy.actor_groups)
    groups = []
    for name in asked:
        found = [group for group in spec.obs if group == name or group.startswith(f"{name}/")]
        if not found:
            hint = did_you_mean(name, spec.obs) or f"; there are {', '.join(spec.obs)}"
            raise ConfigError(f"ppo.terms.rnd.obs_groups: the env has no group {name!r}{hint}")
        groups += found
    for group in groups:
        if len(spec.obs[group].shape) != 1:
            raise ConfigError(
                f"ppo.terms.rnd.obs_groups: {group} is {list(spec.obs[group].shape)}; vectors are "
                "read, name those"
            )
    return Rnd(config, groups, spec, seed, device)
