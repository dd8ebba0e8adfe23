"""Random network distillation: rewards worked by hand, and what goes on, is undone and refused."""

import json
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from isaac_hydra_ext.checkpoints.fit import check_fits
from isaac_hydra_ext.config.rnd_schema import WeightSchedule
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.learner.group import Group, OneProcess
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.learner.rnd import Rnd, scheduled

from ..builders import InProcessRun, changed, env_spec, learner_state, run_config
from .test_group import on_ranks

CPU = torch.device("cpu")
T, N = 4, 3


def learner_of(spec: Any = None, **rnd: Any) -> tuple[PPO, Rnd]:
    config = run_config(N, rollout={"steps_per_env": T}, ppo={"terms": {"rnd": rnd}})
    learner = PPO(config, spec or env_spec(N, step_dt=0.5), CPU)
    (term,) = (trained.term for trained in learner._terms)
    assert isinstance(term, Rnd)
    return learner, term


def fill(learner: PPO, seed: int = 0) -> torch.Tensor:
    """Write observations and rewards; returns a copy of these."""
    draw = torch.Generator().manual_seed(seed)
    for obs in learner.batch._obs.values():
        obs.normal_(generator=draw)
    learner.batch._reward_TN.normal_(generator=draw)
    return learner.batch.reward_TN.clone()


def test_the_intrinsic_reward_by_hand() -> None:
    learner, term = learner_of(weight=0.2, num_outputs=2)
    term._predictor.load_state_dict(
        {name: torch.zeros_like(p) for name, p in term._predictor.state_dict().items()}
    )
    for parameter in term._target.parameters():
        parameter.data.zero_()
    term._target[-1].bias.data.copy_(torch.tensor([3.0, 4.0]))  # 5 from (0, 0), whatever is seen
    raw = fill(learner)
    assert term.prepare(learner.batch) == {}
    # 5 * 0.2 / s * 0.5 s
    torch.testing.assert_close(learner.batch.reward_TN, raw + 0.5)
    metrics = {tag: float(x) for tag, x in term.metrics().items()}
    assert metrics["Rnd/mean_intrinsic_reward"] == 0.5 and metrics["Rnd/weight"] == pytest.approx(
        0.1
    )
    assert metrics["Rnd/mean_extrinsic_reward"] == float(raw.mean())


def test_it_is_of_the_observation_that_follows() -> None:
    learner, term = learner_of(weight=2.0, state_normalization=True)
    raw = fill(learner)
    following = learner.batch.obs["policy"][1:].double()
    x = following.flatten(0, 1)
    x = ((x - x.mean(0)) / (x.std(0, correction=0) + 1e-2)).float()
    with torch.no_grad():
        error = (term._target(x) - term._predictor(x)).abs().view(T, N)
    term.prepare(learner.batch)
    torch.testing.assert_close(learner.batch.reward_TN, raw + error, atol=1e-5, rtol=1e-5)


def test_the_reward_is_divided_by_the_std_of_its_discounted_sums() -> None:
    learner, term = learner_of(weight=2.0, reward_normalization=True)
    sums, running = [], np.zeros(N)
    for iteration in range(3):
        raw = fill(learner, iteration)
        with torch.no_grad():
            x = learner.batch.obs["policy"][1:]
            error = (term._target(x) - term._predictor(x)).abs().squeeze(-1)
        for row in error.double().numpy():
            running = 0.99 * running + row
            sums.append(running)
        term.prepare(learner.batch)
        expected = raw + error / float(np.concatenate(sums).std())
        torch.testing.assert_close(learner.batch.reward_TN, expected, atol=1e-5, rtol=1e-5)


def test_a_left_out_env_leaves_the_sums_of_the_others() -> None:
    learner, term = learner_of(weight=2.0, reward_normalization=True)
    fill(learner)
    term.prepare(learner.batch)
    before = term.state()["sum.per_env"].clone()
    learner.batch._show(N - 1)
    term.prepare(learner.batch)
    assert torch.equal(term.state()["sum.per_env"], before)
    assert torch.isfinite(learner.batch.reward_TN).all()


def test_two_ranks_divide_by_what_one_of_all_envs_does() -> None:
    own = {"weight": 2.0, "reward_normalization": True, "state_normalization": True}
    wide, alone = learner_of(**own)
    batches = []
    for k in range(3):
        fill(wide, k)
        batches.append((wide.batch.obs["policy"].clone(), wide.batch.reward_TN.clone()))

    def rewards(group: Group, term: Rnd, columns: slice) -> list[torch.Tensor]:
        term.begin(group, len(range(N)[columns]))
        found = []
        for obs, reward in batches:
            batch: Any = SimpleNamespace(
                obs={"policy": obs[:, columns]}, reward_TN=reward[:, columns].clone()
            )
            term.prepare(batch)
            found.append(batch.reward_TN)
        return found

    expected = rewards(OneProcess(), alone, slice(0, N))
    parts, terms = (slice(0, 1), slice(1, N)), [learner_of(**own)[1] for _ in range(2)]
    ranks: Any = on_ranks(2, lambda g: rewards(g, terms[g.rank], parts[g.rank]))
    for one, both in zip(expected, zip(*ranks, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(both, dim=1), one, atol=1e-5, rtol=1e-5)


def test_schedules_are_rsl_rls() -> None:
    step_T = torch.arange(1, 9)
    rows = {
        "constant": [2.0] * 8,
        "step": [2.0] * 4 + [0.5] * 4,
        "linear": [2.0, 2.0, 1.5, 1.0, 0.5, 0.5, 0.5, 0.5],
    }
    for mode, expected in rows.items():
        schedule = WeightSchedule(mode, initial_step=2, final_step=5, final_value=0.5)
        assert scheduled(schedule, 2.0, step_T).tolist() == expected


def test_steps_are_counted_over_iterations() -> None:
    schedule = {"mode": "step", "final_step": 6, "final_value": 3.0}
    learner, term = learner_of(env_spec(N), weight=1.0, weight_schedule=schedule)
    for weight in (1.0, 3.0):  # of steps 4 and 8
        fill(learner)
        term.prepare(learner.batch)
        assert float(term.metrics()["Rnd/weight"]) == weight
    assert int(term.state()["env_steps"]) == 8


def run_of(**rnd: Any) -> InProcessRun:
    own = {"weight": 0.1, "state_normalization": True, "reward_normalization": True, **rnd}
    return InProcessRun(run_config(4, ppo={"terms": {"rnd": own}}))


def test_the_predictor_learns_and_the_target_stays() -> None:
    run = run_of(learning_rate=1e-2, predictor_hidden_dims=[16], target_hidden_dims=[8, 8])
    before, losses = learner_state(run.learner), []
    for k in range(12):
        run.collect(k)
        losses.append(run.update(k)["Loss/rnd"])
    after = learner_state(run.learner)
    assert losses[-1] < losses[0] / 3
    targets = [name for name in before if ".target." in name]
    assert len(targets) == 6 and all(torch.equal(before[n], after[n]) for n in targets)
    assert "term.rnd.parameters" in changed(before, after)


def test_an_undone_update_undoes_it_too_and_capturing_leaves_the_rewards() -> None:
    run = run_of()
    run.collect(0)
    run.update(0)
    run.collect(1)
    before, rewards = learner_state(run.learner), run.learner.batch.reward_TN.clone()
    run.learner._compiled = True  # so that there is something to do beforehand
    run.learner.capture()
    assert torch.equal(run.learner.batch.reward_TN, rewards)
    assert changed(before, learner_state(run.learner)) == []
    run.learner.batch.obs["policy"][2, 1] = float("nan")
    assert run.update(1)["Loss/undone"] == 1.0
    assert changed(before, learner_state(run.learner)) == []


def filled(config_envs: int, iteration: int) -> PPO:
    """A learner whose batch is that of an iteration, whatever it has learned."""
    own = {"weight": 0.1, "state_normalization": True, "reward_normalization": True}
    config = run_config(config_envs, rollout={"steps_per_env": T}, ppo={"terms": {"rnd": own}})
    learner = PPO(config, env_spec(config_envs), CPU)
    fill(learner, iteration)
    return learner


def test_it_goes_on_to_the_last_bit_and_with_other_envs() -> None:
    straight = filled(N, 0)
    for iteration in range(3):
        before = learner_state(straight)
        fill(straight, iteration)
        straight.update(iteration)
    resumed = filled(N, 2)
    resumed.load_state_dict(before)
    resumed.update(2)
    assert changed(learner_state(straight), learner_state(resumed)) == []

    others, spec = filled(N + 1, 2), json.loads(json.dumps(env_spec(N).to_json()))
    saved: Any = SimpleNamespace(path="run", tensors=before, meta={"spec": spec})
    check_fits(saved, others.state_dict(), spec)
    others.load_state_dict(before)
    after = learner_state(others)
    assert changed(before, after) == ["term.rnd.sum.per_env"]
    assert not after["term.rnd.sum.per_env"].any()
    others.update(2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weigth": 1.0}, "ppo.terms.rnd.weigth: unknown key; did you mean 'weight'?"),
        ({"weight": "much"}, "ppo.terms.rnd.weight: "),
        ({"weight": -1.0}, "ppo.terms.rnd.weight=-1.0: must be at least 0"),
        ({"weight_schedule": {"mode": "cosine"}}, "weight_schedule.mode=cosine: must be one of"),
        ({"weight_schedule": {"mode": "linear"}}, "final_step=0: must be greater than initial"),
        ({"target_hidden_dims": [8, 0]}, "target_hidden_dims=[8, 0]: sizes, or -1"),
        (3, "ppo.terms.rnd=3: a group of keys is expected here"),
    ],
)
def test_settings_are_checked_before_anything_starts(settings: Any, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run_config(ppo={"terms": {"rnd": settings}})
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_the_groups_that_are_read() -> None:
    obs = {
        "policy": ((3,), "float32"), "rnd_state": ((2,), "float32"),
        "camera": ((4, 4), "uint8"), "rest/a": ((1,), "float64"), "rest/b": ((2,), "float32"),
    }  # fmt: skip
    spec = env_spec(N, obs)
    for asked, groups in (
        (None, ["rnd_state"]),
        (["policy", "rest"], ["policy", "rest/a", "rest/b"]),
    ):
        _, term = learner_of(spec, obs_groups=asked)
        assert term._groups == groups
    _, term = learner_of(env_spec(N))
    assert term._groups == ["policy"]
    for asked, says in ((["camera"], "vectors are read"), (["polcy"], "did you mean 'policy'?")):
        with pytest.raises(ConfigError, match=r"^ppo\.terms\.rnd\.obs_groups: ") as refused:
            learner_of(spec, obs_groups=asked)
        assert says in str(refused.value)


class Corridor(gym.Env[np.ndarray, np.int64]):
    """A reward at the end of a corridor; those who wander do not get there in time."""

    LENGTH = 24
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def _obs(self) -> np.ndarray:
        x = self.place / self.LENGTH
        return np.array([x, np.sin(6 * x)], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.place = 0
        return self._obs(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.place = max(0, self.place + (1 if action else -1))
        found = self.place == self.LENGTH
        return self._obs(), float(found), found, False, {}


gym.register("Corridor-v0", Corridor, max_episode_steps=48)


def found_in(terms: dict[str, Any]) -> float:
    """Rewards of the last 5 of 25 iterations."""
    run = InProcessRun(
        run_config(
            8,
            env={"id": "Corridor-v0"},
            rollout={"steps_per_env": 48},
            ppo={"terms": terms, "batch_size": 192, "update_epochs": 4, "entropy_coef": 0.01},
        )
    )
    found = 0.0
    for k in range(25):
        run.collect(k)
        found += float(run.learner.batch.reward_TN.sum()) * (k >= 20)
        run.update(k)
    return found


def test_curiosity_finds_what_wandering_does_not() -> None:
    curious = {"weight": 0.3, "reward_normalization": True, "state_normalization": True}
    curious |= {"num_outputs": 8, "predictor_hidden_dims": [32], "target_hidden_dims": [32]}
    assert found_in({}) == 0.0
    assert found_in({"rnd": curious}) > 60.0  # 80: straight to the end, again and again
