"""The policy's part of a step: the same numbers as the networks give, whatever they are."""

import pytest
import torch
from torch import nn

from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.envs.contract import ActionSpec
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.networks import ACTIVATIONS
from isaac_hydra_ext.rollout.acting import PlainActing, make_acting
from isaac_hydra_ext.rollout.in_place_acting import InPlaceActing
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import continuous, discrete, env_spec

T, B = 5, 4
BOX = continuous((-1.0, 1.0), (-0.5, 2.0))
MIXED = {
    "a": ((3,), "float32"),
    "image": ((2, 5), "uint8"),
    "scalar": ((), "float64"),
    "unread": ((7,), "float32"),
}


class Rig:
    """A policy with statistics that are not the identity's, and a slot of random observations."""

    def __init__(
        self, action: ActionSpec, network: nn.Module | None = None, **policy: object
    ) -> None:
        config = PolicyConfig(
            hidden_dims=[8, 6],
            obs_groups={"actor": ["image", "a", "scalar"], "critic": ["unread"]},
            **policy,  # type: ignore[arg-type]
        )
        spec = env_spec(B, MIXED, action)
        self.policy = ActorCritic(config, spec, seed=3)
        if network is not None:
            self.policy.actor = network
        self.slot = Slot.allocate(SlotLayout(spec, T, self.distribution.action_dtype), "cpu")
        for obs in self.slot.obs.values():
            obs.copy_(torch.randint(0, 9, obs.shape))
        self.acting = make_acting(self.policy, self.slot)

    @property
    def distribution(self):  # noqa: ANN201
        return self.policy.distribution

    @torch.no_grad()
    def check(self, seed: int) -> None:
        """Act, and compare with what the networks and the distribution say, to the last bit."""
        statistics = self.policy.flat[self.policy.num_params :]
        statistics.copy_(torch.rand(statistics.shape) + 0.5)
        noise = self.distribution.draw_noise((T, B), torch.Generator().manual_seed(seed))
        self.acting.begin(noise, {})
        for t in range(T):
            given = self.acting.act(t)
            params = self.policy.action_params({g: x[t] for g, x in self.slot.obs.items()})
            action = self.distribution.sample(params, noise[t])
            assert torch.equal(self.slot.action_TBA[t], action)
            assert torch.equal(given, self.distribution.to_env(action))
            assert torch.equal(self.acting.params(t + 1)[t], params)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("action", [BOX, discrete(3), discrete(2, 4)], ids=lambda a: str(a.nvec))
def test_actions_are_the_networks_to_the_last_bit(action: ActionSpec, activation: str) -> None:
    rig = Rig(action, activation=activation)
    assert isinstance(rig.acting, InPlaceActing)
    rig.check(seed=1)


@pytest.mark.parametrize(
    "policy",
    [
        {"normalize_obs": False},
        {"std_type": "log"},
        {"squash": "tanh"},
        {"init_std": 0.3},
        {"learn_std": False},
        {"distribution": "heteroscedastic"},
        {"distribution": "heteroscedastic", "squash": "tanh", "std_type": "log"},
        {"distribution": "beta"},
    ],
    ids=str,
)
def test_with_every_distribution_and_with_raw_observations(policy: dict[str, object]) -> None:
    rig = Rig(BOX, **policy)
    assert isinstance(rig.acting, InPlaceActing)
    rig.check(seed=2)


def test_new_weights_are_seen_in_the_next_rollout() -> None:
    rig = Rig(BOX)
    rig.check(seed=1)
    rig.policy.flat.mul_(1.5)
    rig.check(seed=2)


class Doubled(nn.Sequential):
    """Looks like a plain network, and is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "network",
    [
        Doubled(nn.Linear(14, 2)),
        nn.Sequential(nn.LayerNorm(14), nn.Linear(14, 2)),
        nn.Sequential(nn.Linear(14, 2), nn.Tanh()),
        nn.Sequential(nn.Tanh(), nn.Linear(14, 2)),
        nn.Sequential(nn.Linear(14, 2, bias=False)),
    ],
    ids=["subclass", "layer norm", "activation last", "activation first", "no bias"],
)
def test_networks_of_other_packages_are_called_as_they_are(network: nn.Module) -> None:
    rig = Rig(BOX, network)
    assert isinstance(rig.acting, PlainActing)
    rig.check(seed=1)


@pytest.mark.parametrize("action", [BOX, discrete(3)], ids=["box", "choice"])
@torch.no_grad()
def test_what_the_env_is_given_is_its_own(action: ActionSpec) -> None:
    rig = Rig(action)
    rig.acting.begin(rig.distribution.draw_noise((T, B), torch.Generator().manual_seed(1)), {})
    given = [rig.acting.act(t) for t in range(T)]
    assert len({x.data_ptr() for x in given}) == T, "an env may remember its last action"
    written = rig.slot.action_TBA.clone()
    for x in given:
        x.fill_(9)
    assert torch.equal(rig.slot.action_TBA, written), "an env may spoil it"
