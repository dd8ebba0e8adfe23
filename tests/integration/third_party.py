"""What other packages may bring: an algorithm, a policy, a term. Installed by test_protocols.py."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.config.schema import PolicyConfig, RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.learner.algorithm import Algorithm
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.learner.terms import Term
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.policy import Acted, Policy, Samples, Sequences, State
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.terminal.metric import Metric


class Student(Algorithm):
    """Clones a teacher: the student acts, the teacher says what it would have done."""

    fields: Collection[str] = ()
    shown: Sequence[Metric] = (Metric("imitation", "Loss/imitation"),)

    def __init__(
        self, config: RunConfig, spec: EnvSpec, device: torch.device, group: Group
    ) -> None:
        self.notes = ["a student learns from its teacher"]
        self.policy = make_policy(config, spec, device)
        self._teacher = make_policy(config, spec, device)
        run = load_checkpoint(config.algorithm.kwargs["teacher"])
        for name, tensor in self._teacher.state_dict().items():
            tensor.copy_(run.tensors[f"policy.{name}"])
        actor = self.policy.parameter_groups()["actor"]
        self._optimizer = torch.optim.Adam(actor, lr=config.algorithm.kwargs["lr"])
        self._obs: dict[str, torch.Tensor] = {}
        self.versions: list[int] = []

    def load(self, slots: list[Slot]) -> None:
        self.versions = [int(slot.header["policy_version"][0]) for slot in slots]
        self._obs = {
            group: torch.cat([slot.obs[group][:-1].flatten(0, 1) for slot in slots])
            for group in self.policy.actor_groups
        }

    def update(self, iteration: int) -> dict[str, float]:
        with torch.no_grad():
            wanted = self._teacher.distribution.mode(self._teacher.action_params(self._obs))
        loss = torch.zeros(())
        for _ in range(20):
            given = self.policy.distribution.mode(self.policy.action_params(self._obs))
            loss = (given - wanted).square().mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return {"Loss/imitation": loss.item()}

    def publish(self, store: WeightStore, version: int) -> None:
        store.publish(version, self.policy.flat)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"policy.{name}": x for name, x in self.policy.state_dict().items()}

    def load_state_dict(
        self, state: Mapping[str, torch.Tensor], before: Mapping[str, Any] | None = None
    ) -> None:
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


class Reading(Student):
    """Reads a recorded field."""

    fields = ("mean",)


class Remembering(ActorCritic):
    """Records the mean that it acted with, and finds it again where it is learned from."""

    found: list[float] = []  # the largest difference in each pass of the learner

    def __init__(self, config: PolicyConfig, spec: EnvSpec, seed: int, device: Any) -> None:
        super().__init__(config, spec, seed, device)
        self.fields = {"mean": TensorSpec((spec.action.dim,), "float32")}
        self._read = self.actor_groups
        self.actor_groups = [*self._read, "field/mean"]

    def act(self, obs: Samples, state: State, noise_BN: torch.Tensor | None) -> Acted:
        acted = super().act(obs, state, noise_BN)
        recorded = {"mean": acted.params_BP.chunk(2, dim=-1)[0]}
        return Acted(acted.action_BA, acted.env_action_BA, acted.params_BP, recorded)

    def action_params(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        asked, self.actor_groups = self.actor_groups, self._read
        params = super().action_params(samples)
        self.actor_groups = asked
        if "field/mean" in samples and not torch.is_grad_enabled():  # the proximal pass
            mean = params.chunk(2, dim=-1)[0]
            self.found.append(float((samples["field/mean"] - mean).abs().max()))
        return params

    def chain(self) -> None:
        return None  # acts through `act`


class RewardModel(Term):
    """Predicts rewards, with a network and a count of its own."""

    def __init__(self, weight: float, policy: Policy, spec: EnvSpec, seed: int) -> None:
        self.learning_rate, self._weight, self._groups = 0.01, weight, policy.actor_groups
        torch.default_generator.manual_seed(seed)
        inputs = sum(torch.Size(spec.obs[group].shape).numel() for group in self._groups)
        self.network = nn.Linear(inputs + spec.action.dim, 1)
        self.samples_seen = torch.zeros(())

    def prepare(self, batch: RolloutBatch) -> Mapping[str, torch.Tensor]:
        self.samples_seen.add_(batch.reward_TN.numel())
        return {"reward": batch.reward_TN.flatten() / 10.0}

    def loss(self, policy: Policy, samples: Samples) -> torch.Tensor:
        x = torch.cat([*(samples[g].flatten(1) for g in self._groups), samples["action"]], dim=-1)
        error = self.network(x).squeeze(-1) - samples["term/reward"]
        return self._weight * error.square().mean()

    def parameters(self) -> Sequence[nn.Parameter]:
        return list(self.network.parameters())

    def state(self) -> Mapping[str, torch.Tensor]:
        return {"samples_seen": self.samples_seen}


class PullToZero(Term):
    """Trains the policy itself: its actions are pulled to zero. Has nothing of its own."""

    learning_rate = 0.0

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def loss(self, policy: Policy, samples: Samples) -> torch.Tensor:
        params = policy.action_params({name: samples[name] for name in policy.actor_groups})
        return self._weight * policy.distribution.mode(params).square().mean()


def reward_model(
    settings: Mapping[str, Any], policy: Policy, spec: EnvSpec, seed: int, device: torch.device
) -> Term:
    return RewardModel(settings.get("weight", 1.0), policy, spec, seed)


def pull_to_zero(
    settings: Mapping[str, Any], policy: Policy, spec: EnvSpec, seed: int, device: torch.device
) -> Term:
    return PullToZero(settings["weight"])
