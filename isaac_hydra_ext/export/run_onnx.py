"""An exported policy in its environment, with ONNX Runtime and without torch.

Runs in the process of `appo run-onnx`. Episodes are those of `appo eval`: every env begins with its
own seed and plays its share. Nothing here, or imported from here, imports torch: what this file
needs (onnxruntime, gymnasium, numpy) is what a robot's computer would need.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from isaac_hydra_ext.checkpoints.exported import OnnxPolicy
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.gym_ids import find_spec
from isaac_hydra_ext.envs.registry import facts_of
from isaac_hydra_ext.errors import (
    ConfigError,
    EnvError,
    EnvNotFoundError,
    shown,
)
from isaac_hydra_ext.evaluation.episodes import check_returns, summarize_episodes

MAX_ENVS = 32  # as in `appo eval`
DEFAULT_GROUP = "policy"  # of an observation that is not a Dict


def run_onnx(policy: OnnxPolicy, episodes: int, seed: int) -> dict[str, Any]:
    """Play whole episodes in the env that the policy was trained in.

    Args:
        policy: From an exported directory.
        episodes: N >= 1.
        seed: Of the environments.

    Returns:
        episodes, mean_return, std_return, mean_length [steps], std_length, iteration.

    Raises:
        ConfigError: `episodes` is not positive, or the env is not a Gymnasium one.
        EnvNotFoundError: The env is not registered here.
        EnvError: It has other observations or actions than the policy, or a return is NaN or Inf.
    """
    if episodes < 1:
        raise ConfigError(f"--episodes={episodes}: must be at least 1")
    num_envs = min(episodes, MAX_ENVS)
    played: list[tuple[float, int]] = []
    for index in range(num_envs):
        env = _make_env(policy.about)
        try:
            count = episodes // num_envs + (index < episodes % num_envs)
            played += _play(env, policy, count, seed + index)
        finally:
            env.close()
    returns, lengths = zip(*played, strict=True)
    check_returns(returns)
    return {**summarize_episodes(returns, lengths), "iteration": policy.about["iteration"]}


def _make_env(about: Mapping[str, Any]) -> gym.Env:
    env = about["env"]
    if not facts_of(EnvConfig(kind=str(env["kind"]))).is_pure_gym:
        raise ConfigError(
            f"env.kind={env['kind']}: its simulation needs torch itself; appo eval RUN plays it"
        )
    try:
        find_spec(EnvConfig(id=env["id"], imports=env["imports"]))
        made = gym.make(env["id"], **env["kwargs"])
    except (ImportError, gym.error.Error) as e:
        raise EnvNotFoundError(f"env.id={env['id']}: cannot be made here ({shown(e)})") from e
    groups = _groups(made.observation_space)
    for wanted in about["obs"]:
        space, shape = groups.get(wanted["group"]), wanted["shape"]
        shape = shape if wanted.get("frame_stack", 1) == 1 else shape[1:]  # `OnnxPolicy` stacks
        if space is None or list(space.shape or ()) != shape:
            found = None if space is None else space.shape
            raise EnvError(
                f"env.id={env['id']}: obs group {wanted['group']!r} is {found} here, the policy's "
                f"is {tuple(shape)}"
            )
    size = _num_actions(made.action_space)
    if size != about["action"]["dim"]:
        raise EnvError(
            f"env.id={env['id']}: takes {size} actions here, the policy has "
            f"{about['action']['dim']}"
        )
    return made


def _groups(space: gym.Space) -> Mapping[str, gym.Space]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {DEFAULT_GROUP: space}


def _num_actions(space: gym.Space) -> int:
    return int(np.prod(space.shape or ()))


def _to_env(space: gym.Space) -> Callable[[np.ndarray], Any]:
    """Return what turns the policy's action into the env's: discrete ones may not start at 0."""
    if isinstance(space, spaces.Discrete):
        return lambda action: action[0] + space.start
    if isinstance(space, spaces.MultiDiscrete):
        return lambda action: action + getattr(space, "start", 0)  # Gymnasium >= 1.0
    return lambda action: action.astype(space.dtype, copy=False)


def _play(env: gym.Env, policy: OnnxPolicy, episodes: int, seed: int) -> list[tuple[float, int]]:
    """Return (return, length) of each episode; only the first is seeded, as in a vector env."""
    to_env = _to_env(env.action_space)
    single = not isinstance(env.observation_space, spaces.Dict)
    played = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        policy.forget()
        total, length, done = 0.0, 0, False
        while not done:
            groups = {DEFAULT_GROUP: obs} if single else obs
            obs, reward, terminated, truncated, _ = env.step(to_env(policy(groups)))
            total, length, done = total + float(reward), length + 1, terminated or truncated
        played.append((total, length))
    return played
