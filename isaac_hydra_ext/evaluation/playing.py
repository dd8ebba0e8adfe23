"""Playing with deterministic actions. Runs in the process that hosts the simulation."""

import time
from collections.abc import Callable

import numpy as np
import torch

from isaac_hydra_ext.envs.contract import EnvSpec, StepResult, VecEnv, check_obs
from isaac_hydra_ext.errors import EnvError, shown
from isaac_hydra_ext.models.policy import Policy, Samples, restarted

MAX_STEPS = 100_000  # of one episode


class Playing:
    """A policy in its env, with what it sees next and remembers of the running episodes."""

    def __init__(self, env: VecEnv, policy: Policy) -> None:
        """Start nothing; `reset` does.

        Args:
            env: B envs.
            policy: On the env's device.
        """
        self.env, self._policy = env, policy
        self._fresh = self._state = policy.initial_state(env.spec.num_envs)
        self._obs: Samples = {}

    def reset(self, seed: int) -> None:
        """Start all episodes anew."""
        self.begin(self.env.reset(seed))

    def begin(self, obs: Samples, begun_B: torch.Tensor | None = None) -> None:
        """Go on from these observations.

        Args:
            obs: Group -> [B, ...].
            begun_B: bool, whose episodes have begun with them; None: all.

        Raises:
            EnvContractError: They are not of the shapes and dtypes that the env has promised.
        """
        check_obs(obs, self.env.spec)
        self._obs = obs
        if begun_B is None:
            self._state = self._fresh
        else:
            self._state = restarted(self._state, self._fresh, begun_B)

    def step(self) -> StepResult:
        """Take one step with the mean (or most likely) action."""
        with torch.no_grad():  # not around the env, which may differentiate
            acted = self._policy.act(self._obs, self._state, None)
        result = self.env.step(acted.env_action_BA)
        self._state = acted.state
        self.begin(result.obs, result.terminated_B | result.truncated_B)
        return result


def play_episodes(
    env: VecEnv,
    policy: Policy,
    episodes: int,
    seed: int,
    *,
    real_time: bool = False,
    on_state: Callable[[], None] = lambda: None,
) -> tuple[list[float], list[int]]:
    """Play whole episodes; see `Playing`.

    Every env plays its fixed share of the episodes, so that short ones are not over-represented.

    Args:
        env: B envs; all are reset first.
        policy: On the env's device.
        episodes: N >= 1.
        seed: Of the reset.
        real_time: Wait, so that a step takes as long as what it simulates.
        on_state: Called after the reset and after each step.

    Returns:
        Return and length [steps] of each episode.

    Raises:
        EnvError: An episode does not end.
        EnvContractError: An observation of another shape or dtype than the env has said.
    """
    B = env.spec.num_envs
    quota_B = np.array([episodes // B + (b < episodes % B) for b in range(B)])
    return_B, length_B = np.zeros(B), np.zeros(B, np.int64)
    returns: list[float] = []
    lengths: list[int] = []
    playing = Playing(env, policy)
    playing.reset(seed)
    on_state()
    while quota_B.any():
        started = time.monotonic()
        result = playing.step()
        on_state()
        return_B += result.reward_B.detach().cpu().numpy()
        length_B += 1
        done_B = (result.terminated_B | result.truncated_B).cpu().numpy()
        counted_B = done_B & (quota_B > 0)
        returns += return_B[counted_B].tolist()
        lengths += length_B[counted_B].tolist()
        quota_B[counted_B] -= 1
        if length_B[quota_B > 0].max(initial=0) >= MAX_STEPS:
            raise EnvError(
                f"an episode has not ended after {MAX_STEPS:,} steps; give the env a time limit "
                "(Gymnasium: max_episode_steps when it is registered)"
            )
        return_B[done_B], length_B[done_B] = 0.0, 0
        if real_time:
            time.sleep(max(0.0, env.spec.step_dt - (time.monotonic() - started)))
    return returns, lengths


def check_same_spaces(found: EnvSpec, expected: EnvSpec) -> None:
    """Refuse an env that a policy was not made for.

    Raises:
        EnvError: Its observations or its action are others.
    """
    for name in ("obs", "action"):
        theirs, ours = getattr(found, name), getattr(expected, name)
        if theirs != ours:
            raise EnvError(
                f"of another environment: {name} is {shown(ours, 300)}, here {shown(theirs, 300)}"
            )
