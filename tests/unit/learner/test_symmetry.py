"""Mirrored samples and the mirror loss: against the concatenated batch, and worked by hand."""

from typing import Any

import pytest
import torch

from isaac_hydra_ext.envs.contract import Mirror
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.learner.group import OneProcess
from isaac_hydra_ext.learner.ppo.losses import ActorSamples, CriticSamples, actor_loss, critic_loss
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.learner.ppo.preparation import Prepared, prepare
from isaac_hydra_ext.learner.ppo.symmetry import MirrorLoss, Symmetry
from isaac_hydra_ext.models.actor_critic import ActorCritic

from ..builders import InProcessRun, changed, continuous, discrete, env_spec, learner_state
from ..builders import run_config as config_of

CPU = torch.device("cpu")
PENDULUM = {"flipped": {"obs": {"policy": [1, -2, -3]}, "action": [-1]}}
SYMMETRY: dict[str, Any] = {"mirrors": PENDULUM, "use_data_augmentation": True}
ONE_STEP = {"update_epochs": 1, "num_mini_batches": 1, "lr_schedule": "fixed"}


def collected(symmetry: dict[str, Any] | None, **ppo: Any) -> InProcessRun:
    sections = {**ONE_STEP, **ppo, **({"symmetry": symmetry} if symmetry else {})}
    run = InProcessRun(config_of(4, ppo=sections))
    for k in range(2):  # the second one's normalisers are not the identity
        run.collect(k)
        if not k:
            run.update(k)
    return run


def copy_of(learner: PPO, run: InProcessRun) -> tuple[ActorCritic, Prepared]:
    policy = ActorCritic(run.config.policy, learner._spec, 0)
    policy.load_state_dict(learner.policy.state_dict())
    prepared = prepare(run.config.ppo, learner._spec, policy, learner.batch, None, OneProcess())
    return policy, prepared


def test_permutations_and_signs_by_hand() -> None:
    mirrors = [Mirror({"a": (-2, 1, 3)}, (2, -1)), Mirror({"a": (3, 1, -2)}, (-1, -2))]
    symmetry = Symmetry(mirrors, ["a"], CPU)
    found = symmetry.obs({"a": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])})["a"]
    assert found.tolist() == [
        [1, 2, 3], [4, 5, 6], [-2, 1, 3], [-5, 4, 6], [3, 1, -2], [6, 4, -5]
    ]  # fmt: skip
    assert symmetry.action(torch.tensor([[1.0, 2.0]])).tolist() == [[1, 2], [2, -1], [-1, -2]]


@pytest.mark.parametrize("coeff", [0.0, 0.7])
def test_an_augmented_update_is_one_on_the_concatenated_batch(coeff: float) -> None:
    asked = {**SYMMETRY, "use_mirror_loss": coeff > 0, "mirror_loss_coeff": coeff}
    run = collected(asked, normalize_advantages=False)
    learner = run.learner
    assert learner._epochs._by_hand is None
    policy, given = copy_of(learner, run)
    flip, obs = torch.tensor([1.0, -1.0, -1.0]), learner.batch.obs_N["policy"]
    both = {"policy": torch.cat([obs, obs * flip])}
    a, c = given.actor, given.critic

    def twice(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x])

    params = policy.action_params(both)
    actor = actor_loss(
        run.config.ppo,
        policy.distribution,
        ActorSamples(
            torch.cat([a.action_MA, -a.action_MA]),
            twice(a.advantage_M),
            twice(a.proximal_params_MP),
            twice(a.proximal_log_prob_M),
            twice(a.weight_M),
            None,
        ),
        params,
    )
    critic = critic_loss(
        run.config.ppo,
        CriticSamples(twice(c.target_M), twice(c.proximal_value_M)),
        policy.raw_value(both),
    )
    # The entropy of a Gaussian whose std no observation changes is that of the originals.
    mean, mirrored = params.chunk(2, dim=-1)[0].split(len(obs))
    mirror_loss = (mirrored + mean.detach()).square().mean()
    optimizer = torch.optim.Adam(policy.parameters(), lr=run.config.ppo.lr)
    moments = learner._epochs.optimizer._moments
    for name in moments:
        moments[name].zero_()
    (actor.total + run.config.ppo.value_coef * critic + coeff * mirror_loss).backward()
    actors = [p for name, p in policy.named_parameters() if not name.startswith("critic.")]
    for network in (actors, policy.critic.parameters()):
        torch.nn.utils.clip_grad_norm_(network, run.config.ppo.max_grad_norm)
    optimizer.step()
    expected = policy.flat[: policy.num_params].detach().clone()
    metrics = run.update(1)
    found = learner.policy.flat[: policy.num_params]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert metrics["Loss/symmetry"] == pytest.approx(mirror_loss.item(), rel=1e-5)
    assert metrics["Loss/surrogate"] == pytest.approx(actor.surrogate.item(), rel=1e-4)
    assert metrics["Policy/kl"] == 0.0  # of the originals, before the one step


def test_the_mirror_loss_by_hand() -> None:
    class Doubling:
        """Mean action = 2 * obs + 1."""

        actor_groups = ["a"]
        distribution: Any = type("D", (), {"mode": staticmethod(lambda params: params)})
        weight = torch.tensor(2.0, requires_grad=True)

        def action_params(self, obs: Any) -> torch.Tensor:
            return self.weight * obs["a"] + 1.0

    loss = MirrorLoss(Symmetry([Mirror({"a": (-1,)}, (-1,))], ["a"], CPU), 0.5)
    policy: Any = Doubling()
    found = loss.loss(policy, {"a": torch.tensor([[3.0], [1.0]]), "b": torch.zeros(2, 1)})
    # Mirrored: 2 * -3 + 1 = -5 and -1; wanted: -(2 * 3 + 1) = -7 and -3: differences 2, 2.
    assert found.item() == 4.0
    # d/dw of ((w * -x + 1) - wanted)^2 with `wanted` fixed: 2 * 2 * -x, mean over x = 3, 1.
    assert torch.autograd.grad(found, policy.weight)[0].item() == -8.0


def test_a_symmetry_that_is_only_measured_leaves_every_bit() -> None:
    without, measured = collected(None), collected({"mirrors": PENDULUM})
    assert "Loss/symmetry" not in without.update(1)
    assert measured.update(1)["Loss/symmetry"] > 0
    assert changed(learner_state(without.learner), learner_state(measured.learner)) == []


def test_the_mirror_loss_makes_the_policy_symmetric() -> None:
    run = collected(
        {"mirrors": PENDULUM, "use_mirror_loss": True, "mirror_loss_coeff": 100.0},
        lr=3e-3, update_epochs=10,
    )  # fmt: skip
    assert run.learner._epochs._by_hand is not None
    losses = []
    for k in range(1, 6):
        losses.append(run.update(k)["Loss/symmetry"])
        run.collect(k + 1)
    assert losses[-1] < losses[0] / 5


@pytest.mark.parametrize(
    ("mirrors", "says"),
    [
        ({"m": {"obs": {"policy": [1, -2]}, "action": [-1]}}, "m.obs.policy: 2 entries of 3"),
        ({"m": {"obs": {}, "action": [-1]}}, "m.obs.policy: missing; the policy reads it"),
        ({"m": {"obs": {"policy": [1, 2, 3]}, "action": [1, 2]}}, "m.action: 2 entries of 1"),
    ],
)
def test_what_does_not_fit_the_env_is_refused(mirrors: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ppo\.symmetry\.mirrors\.{says}"):
        PPO(config_of(ppo={"symmetry": {"mirrors": mirrors}}), env_spec(), CPU)


@pytest.mark.parametrize(
    ("mirror", "says"),
    [
        ({"obs": {"policy": [1, -2, 2]}, "action": [-1]}, "m.obs.policy=[1, -2, 2]: each entry"),
        ({"obs": {"policy": [0, 1, 2]}, "action": [-1]}, "m.obs.policy=[0, 1, 2]: each entry"),
        ({"obs": {"policy": [1.0]}, "action": [-1]}, "m.obs.policy=[1.0]: each entry"),
        ({"obs": {"policy": [1]}}, "is expected"),
        ([1, 2], "is expected"),
    ],
)
def test_what_is_no_mirror_is_refused_before_anything_starts(mirror: Any, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config_of(ppo={"symmetry": {"mirrors": {"m": mirror}}})
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("use", ["use_data_augmentation", "use_mirror_loss"])
def test_a_use_without_mirrors_is_refused(use: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ppo\.symmetry\.{use}=true: nothing says what is"):
        config_of(ppo={"symmetry": {use: True}})


def test_what_cannot_be_mirrored_is_refused() -> None:
    def refused(spec: Any, policy: dict[str, Any] | None = None) -> str:
        config = config_of(policy=policy or {}, ppo={"symmetry": {"mirrors": PENDULUM}})
        with pytest.raises(ConfigError) as error:
            PPO(config, spec, CPU)
        return str(error.value)

    assert "needs continuous actions" in refused(env_spec(action=discrete(2)))
    assert "only vectors of floats" in refused(env_spec(obs={"policy": ((3,), "uint8")}))
    assert "only vectors of floats" in refused(env_spec(obs={"policy": ((3, 1), "float32")}))
    lopsided = refused(env_spec(action=continuous((-1.0, 2.0))), {"squash": "tanh"})
    assert "entry 1 has [-1.0, 2.0], entry 1 [-1.0, 2.0]" in lopsided
