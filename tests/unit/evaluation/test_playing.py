"""What is remembered while a policy is played: of each env, until its episode ends."""

from collections.abc import Callable

import pytest
import torch

from isaac_hydra_ext.envs.contract import StepResult
from isaac_hydra_ext.evaluation.playing import Playing, play_episodes
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.models.registry import make_policy

from ..builders import continuous, env_spec, run_config

B, SEEN = 3, torch.tensor([0.3, -0.2, 0.1])
ENDS = {1: {0: "terminated"}, 2: {1: "truncated"}, 4: {0: "terminated", 2: "truncated"}}


class SameSight:
    """Shows the same in every step, so that actions differ by what is remembered alone."""

    spec = env_spec(B, action=continuous((-100.0, 100.0)))

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        self.actions: list[torch.Tensor] = []
        return {"policy": SEEN.expand(B, 3).clone()}

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        ends = ENDS.get(len(self.actions), {})
        self.actions.append(actions_BA.clone())
        if len(self.actions) > 5:
            ends = dict.fromkeys(range(B), "terminated")
        flags = {
            kind: torch.tensor([ends.get(b) == kind for b in range(B)])
            for kind in ("terminated", "truncated")
        }
        obs = {"policy": SEEN.expand(B, 3).clone()}
        return StepResult(
            obs, torch.ones(B), flags["terminated"], flags["truncated"], final_obs=None, log={}
        )


def stepped(env: SameSight, policy: Policy) -> None:
    playing = Playing(env, policy)  # type: ignore[arg-type]
    playing.reset(0)
    for _ in range(6):
        playing.step()


def whole_episodes(env: SameSight, policy: Policy) -> None:
    play_episodes(env, policy, 6, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("play", [stepped, whole_episodes])
def test_each_env_forgets_where_its_own_episode_ends(
    kind: str, play: Callable[[SameSight, Policy], None]
) -> None:
    config = run_config(B, policy={"recurrent": {"kind": kind, "hidden": 8}})
    policy, env = make_policy(config, SameSight.spec), SameSight()
    draw = torch.Generator().manual_seed(1)
    for p in policy.parameter_groups()["actor"]:  # else actions begin near 0
        p.data.uniform_(-1.0, 1.0, generator=draw)
    play(env, policy)
    obs, state, since_start = {"policy": SEEN.expand(1, 3)}, policy.initial_state(1), []
    with torch.no_grad():
        for _ in range(6):
            acted = policy.act(obs, state, None)
            state = acted.state
            since_start.append(acted.env_action_BA[0])
    age_B = [0] * B
    assert len(env.actions) == 6
    for t, action_BA in enumerate(env.actions):
        for b in range(B):
            torch.testing.assert_close(action_BA[b], since_start[age_B[b]], atol=1e-6, rtol=0)
            age_B[b] = 0 if b in ENDS.get(t, {}) else age_B[b] + 1
    pairs = zip(since_start, since_start[1:], strict=False)
    assert all((a - b).abs().max() > 1e-4 for a, b in pairs)
