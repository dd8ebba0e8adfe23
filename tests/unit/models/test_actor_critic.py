"""Networks: one flat vector under everything, obs groups, PopArt, the std's floor."""

from typing import Any

import pytest
import torch

from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.models.actor_critic import MIN_STD, ActorCritic, choose_obs_groups
from isaac_hydra_ext.run.start import about

from ..builders import discrete, env_spec, run_config

GROUPS = {"policy": ((3,), "float32"), "privileged": ((4,), "float32")}


def policy_of(seed: int = 0, obs: dict[str, Any] | None = None, **knobs: Any) -> ActorCritic:
    spec = env_spec(obs=GROUPS if obs is None else obs, action=knobs.pop("action", None))
    return ActorCritic(PolicyConfig(hidden_dims=[8], **knobs), spec, seed)


def observations(rows: int = 5) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {k: torch.randn(rows, *s, generator=g) for k, (s, _) in GROUPS.items()}


def trained(**knobs: Any) -> ActorCritic:
    """A policy whose every number, statistics included, is its own."""
    policy = policy_of(1, normalize_values=True, **knobs)
    policy.update_statistics(observations(50), torch.linspace(-30, 90, 50))
    with torch.no_grad():
        policy.flat += 0.01 * torch.arange(policy.flat.numel()) % 0.1
    return policy


# ------------------------------------------------------------------ the flat vector


def test_every_parameter_and_float32_statistic_lies_in_flat_and_nothing_else() -> None:
    policy = policy_of(normalize_values=True)
    tensors = [p.data for p in policy.parameters()]
    tensors += [b for b in policy.buffers() if b.dtype == torch.float32]
    spans = sorted((t.data_ptr(), t.data_ptr() + 4 * t.numel()) for t in tensors)
    start = policy.flat.data_ptr()
    assert spans[0][0] == start
    assert spans[-1][1] == start + 4 * policy.flat.numel()
    assert all(end == begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


def test_parameters_come_first() -> None:
    policy = policy_of()
    assert policy.num_params == sum(p.numel() for p in policy.parameters())
    policy.flat[policy.num_params :] = 7.0
    assert {n for n, b in policy.named_buffers() if (b == 7).all()} == {
        f"{role}_normalizers.policy.{what}"
        for role in ("actor", "critic")
        for what in ("mean", "std")
    }
    assert not any((p == 7).any() for p in policy.parameters())


def test_writing_flat_changes_parameters_and_statistics_and_the_other_way_round() -> None:
    policy = policy_of()
    policy.flat.fill_(0.5)
    assert all((p == 0.5).all() for p in policy.parameters())
    normalizer = policy.actor_normalizers["policy"]
    assert normalizer.mean.tolist() == [0.5] * 3
    with torch.no_grad():
        policy.critic[0].bias.fill_(2.0)
    normalizer.std.fill_(3.0)
    assert (policy.flat == 2.0).sum() == 8
    assert (policy.flat == 3.0).sum() == 3


def test_update_statistics_and_load_state_dict_stay_in_flat() -> None:
    policy, before = trained(), policy_of(2, normalize_values=True)
    address = before.flat.data_ptr()
    before.load_state_dict(policy.state_dict())
    assert before.flat.data_ptr() == address
    assert torch.equal(before.flat, policy.flat)


@pytest.mark.parametrize("knobs", [{}, {"std_type": "log"}, {"action": discrete(2, 3)}])
def test_copying_flat_makes_another_instance_bit_equal(knobs: dict[str, Any]) -> None:
    source, copy = trained(**knobs), policy_of(9, normalize_values=True, **knobs)
    obs = observations()
    assert not torch.equal(copy.action_params(obs), source.action_params(obs))
    copy.flat.copy_(source.flat)
    assert torch.equal(copy.action_params(obs), source.action_params(obs))
    assert torch.equal(
        copy.denormalize_value(copy.raw_value(obs)), source.denormalize_value(source.raw_value(obs))
    )


def test_the_seed_alone_decides_the_initial_weights() -> None:
    torch.manual_seed(1)
    first = policy_of(5).flat
    torch.manual_seed(2)
    assert torch.equal(policy_of(5).flat, first)
    assert not torch.equal(policy_of(6).flat, first)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(4)
    expected = torch.randn(3)
    torch.manual_seed(4)
    policy_of(5)
    assert torch.equal(torch.randn(3), expected)


# ------------------------------------------------------------------ obs groups


@pytest.mark.parametrize(
    ("asked", "available", "actor", "critic"),
    [
        (None, ["policy"], ["policy"], ["policy"]),
        (None, ["actor", "critic"], ["actor"], ["critic"]),
        (None, ["policy", "critic"], ["policy"], ["critic"]),
        (None, ["actor", "policy"], ["actor"], ["actor"]),
        (None, ["a", "b"], ["a", "b"], ["a", "b"]),
        ({"critic": ["a", "b"]}, ["a", "b", "policy"], ["policy"], ["a", "b"]),
        ({"actor": ["b"]}, ["a", "b"], ["b"], None),
        ({"actor": ["b", "a"], "critic": ["a"]}, ["a", "b"], ["b", "a"], ["a"]),
        (None, ["policy/a", "policy/b", "subtask/a"], ["policy/a", "policy/b"], None),
        (None, ["policy/a", "critic/a", "policyx/a"], ["policy/a"], ["critic/a"]),
        ({"actor": ["policy"]}, ["x", "policy/a", "policy/b"], ["policy/a", "policy/b"], None),
        (
            {"critic": ["s", "policy/b"]},
            ["policy/a", "policy/b", "s/a", "s/b"],
            ["policy/a", "policy/b"],
            ["s/a", "s/b", "policy/b"],
        ),
        (
            {"actor": ["policy/b", "policy"]},
            ["policy/a", "policy/b"],
            ["policy/b", "policy/a"],
            None,
        ),
    ],
)
def test_choice_of_groups(
    asked: dict[str, list[str]] | None,
    available: list[str],
    actor: list[str],
    critic: list[str] | None,  # None: what the actor sees
) -> None:
    assert choose_obs_groups(asked, available) == (actor, critic or actor)


def test_an_unknown_group_is_refused_by_key_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"policy\.obs_groups\.critic.*'privilegd'.*'privileged'"):
        choose_obs_groups({"critic": ["privilegd"]}, ["policy", "privileged"])
    with pytest.raises(ConfigError, match=r"'zzz'; there are policy, privileged"):
        choose_obs_groups({"actor": ["zzz"]}, ["policy", "privileged"])
    with pytest.raises(ConfigError, match=r"'polcy'; did you mean 'policy'"):
        choose_obs_groups({"actor": ["polcy"]}, ["policy/a", "policy/b"])


def test_an_unknown_role_is_refused_by_key() -> None:
    with pytest.raises(ConfigError, match=r"policy\.obs_groups\.teacher: must be actor or critic"):
        choose_obs_groups({"teacher": ["policy"]}, ["policy"])


def test_an_asymmetric_critic_sees_its_groups_and_the_actor_does_not() -> None:
    asked = {"actor": ["policy"], "critic": ["policy", "privileged"]}
    policy, obs = policy_of(obs_groups=asked), observations()
    other = {**obs, "privileged": obs["privileged"] + 1}
    assert torch.equal(policy.action_params(other), policy.action_params(obs))
    assert not torch.equal(policy.raw_value(other), policy.raw_value(obs))
    assert policy.actor[0].in_features == 3
    assert policy.critic[0].in_features == 7
    policy.action_params({"policy": obs["policy"]})  # the other group is not even asked for


def test_groups_are_concatenated_in_the_order_asked_for() -> None:
    asked = {"actor": ["privileged", "policy"]}
    policy, obs = policy_of(obs_groups=asked, normalize_obs=False), observations()
    joined = torch.cat([obs["privileged"], obs["policy"]], dim=-1)
    assert torch.equal(policy.action_params(obs)[:, :1], policy.actor(joined))


def test_images_and_integers_are_flattened_and_scalars_become_one_column() -> None:
    shapes = {"image": ((2, 2), "uint8"), "scalar": ((), "float64"), "dot.ted": ((1,), "int64")}
    policy = policy_of(obs=shapes, normalize_obs=False, normalize_critic_obs=False)
    obs = {
        "image": torch.tensor([[[1, 2], [3, 255]]], dtype=torch.uint8),
        "scalar": torch.tensor([0.5], dtype=torch.float64),
        "dot.ted": torch.tensor([[-4]]),
    }
    flat = torch.tensor([[1.0, 2.0, 3.0, 255.0, 0.5, -4.0]])
    assert torch.equal(policy.action_params(obs)[:, :1], policy.actor(flat))
    assert torch.equal(policy.raw_value(obs), policy.critic(flat)[:, 0])


def test_each_group_has_statistics_of_its_own_also_under_a_dotted_name() -> None:
    policy = policy_of(obs={"a.b": ((2, 2), "uint8"), "c": ((1,), "float32")})
    image = torch.tensor([[[0, 2], [4, 6]], [[2, 4], [6, 8]]], dtype=torch.uint8)
    policy.update_statistics({"a.b": image, "c": torch.tensor([[1.0], [5.0]])}, torch.zeros(2))
    means = {k: v.tolist() for k, v in policy.named_buffers() if k.endswith(".mean")}
    assert means["actor_normalizers.a__dot__b.mean"] == [1.0, 3.0, 5.0, 7.0]
    assert means["critic_normalizers.c.mean"] == [3.0]


# ------------------------------------------------------------------ values and std


@pytest.mark.parametrize("group", ["items", "keys", "type", "training", "update", "state_dict"])
def test_a_group_may_be_called_as_something_of_torchs(group: str) -> None:
    groups = {"actor": [group, "b"], "critic": [group]}
    shapes = {group: ((3,), "float32"), "b": ((1,), "float32")}
    policy = policy_of(obs=shapes, obs_groups=groups)
    obs = {group: torch.full((5, 3), 2.0), "b": torch.zeros(5, 1)}
    policy.update_statistics(obs, torch.zeros(5))
    chain = policy.chain()
    assert chain is not None
    assert [n and n.mean.tolist() for n in chain.normalizers] == [[2.0] * 3, [0.0]]


def test_popart_keeps_the_denormalised_values_where_they_were() -> None:
    policy, obs = policy_of(normalize_values=True, normalize_critic_obs=False), observations(200)
    for shift in (0.0, 300.0, -50.0):
        before = policy.denormalize_value(policy.raw_value(obs)).detach()
        policy.update_statistics(obs, shift + torch.linspace(-100, 100, 200))
        after = policy.denormalize_value(policy.raw_value(obs)).detach()
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert policy.value_normalizer is not None and policy.value_normalizer.count == 600


def test_without_value_normalisation_values_are_returns() -> None:
    policy, x = policy_of(), torch.tensor([1.0, -3.0])
    assert policy.denormalize_value(x) is x
    assert policy.normalize_value(x) is x


def test_after_step_lifts_a_scalar_std_to_its_floor_inside_flat() -> None:
    policy = policy_of()
    assert policy.std is not None
    policy.std.data.fill_(-0.2)
    policy.after_step()
    assert policy.std.item() == pytest.approx(MIN_STD)
    assert (policy.flat == policy.std.item()).sum() == 1
    policy.std.data.fill_(0.3)
    policy.after_step()
    assert policy.std.item() == pytest.approx(0.3)


def test_an_initial_std_below_the_floor_is_the_floor() -> None:
    policy = policy_of(init_std=1e-5)
    policy.after_step()
    assert policy.std is not None and policy.std.item() == pytest.approx(1e-5)
    policy.std.data.fill_(-0.2)
    policy.after_step()
    assert policy.std.item() == pytest.approx(1e-5)


def test_a_logarithmic_std_may_be_negative_and_acts_as_its_exponential() -> None:
    policy = policy_of(std_type="log", init_std=0.25)
    policy.after_step()
    assert policy.std is not None and policy.std.item() < 0
    assert policy.action_params(observations(1))[0, 1].item() == pytest.approx(0.25)
    mean = policy.mean_std()
    assert mean is not None and mean.item() == pytest.approx(0.25)


@pytest.mark.parametrize("std_type", ["scalar", "log"])
def test_a_learned_std_stays_in_its_range(std_type: str) -> None:
    policy = policy_of(std_type=std_type, init_std=0.3, std_range=[0.2, 0.5])
    assert policy.std is not None
    for pushed, expected in ((-9.0, 0.2), (9.0, 0.5)):
        policy.std.data.fill_(pushed)
        policy.after_step()
        std = policy.current_std()
        assert std is not None and std.item() == pytest.approx(expected)


@pytest.mark.parametrize("std_type", ["scalar", "log"])
def test_a_std_that_is_not_learned_is_published_and_no_parameter(std_type: str) -> None:
    policy = policy_of(std_type=std_type, init_std=0.3, learn_std=False)
    assert policy.std is not None and policy.std.data_ptr() not in {
        p.data_ptr() for p in policy.parameters()
    }
    start = policy.flat.data_ptr() + 4 * policy.num_params
    assert start <= policy.std.data_ptr() < policy.flat.data_ptr() + 4 * policy.flat.numel()
    policy.after_step()
    assert policy.action_params(observations(1))[0, 1].item() == pytest.approx(0.3)
    assert "std" in policy.state_dict()


@pytest.mark.parametrize(
    ("knobs", "std"),
    [
        ({"distribution": "heteroscedastic", "init_std": 0.3}, 0.3),
        ({"distribution": "heteroscedastic", "init_std": 0.3, "std_type": "log"}, 0.3),
        ({"distribution": "beta"}, None),
    ],
)
def test_a_networks_std_is_the_same_for_every_observation_at_first(
    knobs: dict[str, Any], std: float | None
) -> None:
    policy, obs = policy_of(**knobs), observations()
    assert policy.std is None and policy.mean_std() is None
    params = policy.action_params(obs)
    assert params.shape == (5, 2) and len(set(params[:, 1].tolist())) == 1
    if std is not None:
        assert policy.distribution.std(params).flatten().tolist() == pytest.approx([std] * 5)
    policy.distribution.entropy(params, None).sum().backward()
    last = [*policy.actor.parameters()][-2]
    assert last.grad is not None and last.grad[1].abs().min() > 0, "and it learns"


def test_the_critic_may_have_an_activation_of_its_own() -> None:
    policy = policy_of(activation="relu", critic_activation="tanh")
    kinds = [type(network[1]) for network in (policy.actor, policy.critic)]  # type: ignore[index]
    assert kinds == [torch.nn.ReLU, torch.nn.Tanh]


def test_discrete_actions_have_no_std() -> None:
    policy = policy_of(action=discrete(2, 3))
    assert policy.std is None and policy.mean_std() is None
    assert not policy.distribution.std(policy.action_params(observations(4))).any()
    assert policy.action_params(observations(4)).shape == (4, 5)


def test_building_a_policy_leaves_every_global_generator_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeded: list[object] = []
    for module, name in ((torch.cuda, "manual_seed"), (torch.cuda, "manual_seed_all")):
        monkeypatch.setattr(module, name, lambda seed: seeded.append(seed))
    torch.default_generator.manual_seed(7)
    before = torch.get_rng_state()
    one, two = policy_of(seed=1), policy_of(seed=1)
    assert torch.equal(torch.get_rng_state(), before) and seeded == []
    assert torch.equal(one.flat, two.flat)


def test_the_critics_own_group_is_not_given_to_the_actor() -> None:
    assert choose_obs_groups(None, ["proprio", "critic"]) == (["proprio"], ["critic"])
    assert choose_obs_groups(None, ["a", "b"]) == (["a", "b"], ["a", "b"])
    assert choose_obs_groups(None, ["critic"]) == (["critic"], ["critic"])
    assert choose_obs_groups(None, ["policy", "goal"]) == (["policy"], ["policy"])


def test_the_first_lines_of_a_run_say_who_reads_what_and_warn_of_what_nobody_does() -> None:
    told: list[str] = []
    spec = env_spec(obs={"policy": ((3,), "float32"), "goal": ((2, 2), "float32")})
    policy, cpu = ActorCritic(PolicyConfig(), spec, 0), torch.device("cpu")
    lines = list(about(run_config(), spec, policy, cpu, told.append))
    assert lines[-1] == "actor and critic read policy (3)"
    assert told == ["nobody reads the observation group goal (policy.obs_groups)"]
    both = PolicyConfig(obs_groups={"actor": ["policy"], "critic": ["policy", "goal"]})
    told.clear()
    lines = list(about(run_config(), spec, ActorCritic(both, spec, 0), cpu, told.append))
    assert lines[-1] == "the actor reads policy (3); the critic policy (3), goal (2x2 = 4)"
    assert told == []
