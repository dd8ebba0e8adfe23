"""Gymnasium environments behind the contract. Lives in the process that hosts the simulation.

Gymnasium names the last observation of an ended episode `final_observation` (0.29) or `final_obs`
(>= 1.1); both are read. Gymnasium 1.0 has no same-step autoreset and is refused.
"""

import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv
from gymnasium.vector import SyncVectorEnv

from isaac_hydra_ext.config import EnvConfig
from isaac_hydra_ext.envs.imports import import_packages
from isaac_hydra_ext.envs.spaces import read_action_space
from isaac_hydra_ext.envs.vec_env import (
    EnvSpec,
    StepResult,
    TaskDescription,
    TensorSpec,
)
from isaac_hydra_ext.errors import EnvError, EnvNotFoundError, RenderError, did_you_mean

DEFAULT_NUM_ENVS = 32
DEFAULT_GROUP = "policy"


def check_registered(env_config: EnvConfig) -> None:
    """Import `env.imports` and look the id up; works without building anything.

    Raises:
        EnvNotFoundError: Names near ids.
    """
    import_packages(env_config.imports)
    env_id = str(env_config.id)
    try:
        gym.spec(env_id)
    except gym.error.Error as e:
        near = did_you_mean(env_id, gym.registry)
        hint = near or "; name the package that registers it in env.imports=[...]"
        raise EnvNotFoundError(f"env.id={env_id}: not registered with Gymnasium{hint}") from e


def describe(env_config: EnvConfig) -> TaskDescription:
    """Resolve the id; see `TaskDescription`."""
    check_registered(env_config)
    return TaskDescription(DEFAULT_NUM_ENVS, {}, {"id": env_config.id, **env_config.kwargs})


class GymVecEnv:
    """B copies of a Gymnasium env, stepped one after the other in this process."""

    def __init__(self, env_config: EnvConfig, num_envs: int, render: bool = False) -> None:
        """Build the envs.

        Args:
            env_config: `id`, `kwargs` and `imports` are read.
            num_envs: B.
            render: Make them with `render_mode=rgb_array`.

        Raises:
            EnvNotFoundError: The id is not registered.
            EnvError: A space that is not supported, or Gymnasium 1.0.
            RenderError: It does not know `render_mode`.
        """
        check_registered(env_config)
        kwargs = {**env_config.kwargs, **({"render_mode": "rgb_array"} if render else {})}
        make = [lambda: _KeepFinalObs(gym.make(str(env_config.id), **kwargs))]
        try:
            self._vec = SyncVectorEnv(make * num_envs, **_same_step_autoreset())
        except TypeError as e:
            if not render or "render_mode" not in str(e):
                raise
            raise RenderError(
                f"env.id={env_config.id}: its constructor takes no render_mode: no pictures"
            ) from e
        action, self._first_choice = read_action_space(self._vec.single_action_space)
        single_obs = self._vec.single_observation_space
        if isinstance(single_obs, spaces.Dict):
            groups = dict(single_obs.spaces)
        else:
            groups = {DEFAULT_GROUP: single_obs}
        env = self._vec.envs[0]
        limit = getattr(env.spec, "max_episode_steps", None)
        dt = getattr(env.unwrapped, "dt", None) or getattr(env.unwrapped, "tau", None)
        self.spec = EnvSpec(
            num_envs=num_envs,
            obs={name: _tensor_spec(name, space) for name, space in groups.items()},
            action=action,
            step_dt=float(dt) if isinstance(dt, (int, float)) else 0.0,
            max_episode_length=max(0, int(limit or 0)),  # Gymnasium 0.29 says -1 for none
            has_final_obs=True,
            has_state=all(_state_names(e) is not None for e in self._vec.envs),
        )

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        """See `VecEnv.reset`; env i gets seed + i."""
        obs, _ = self._vec.reset(seed=seed)
        return self._to_groups(obs)

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        """See `VecEnv.step`."""
        actions = actions_BA.numpy()
        if self.spec.action.kind == "discrete":
            actions = actions + self._first_choice
            if isinstance(self._vec.single_action_space, spaces.Discrete):
                actions = actions[:, 0]
        obs, reward, terminated, truncated, info = self._vec.step(actions)
        return StepResult(
            obs=self._to_groups(obs),
            # Gymnasium's reward is float64 here: the conversion is the copy. Flags are copied.
            reward_B=torch.from_numpy(reward.astype(np.float32)),
            terminated_B=torch.from_numpy(np.array(terminated, dtype=bool)),
            truncated_B=torch.from_numpy(np.array(truncated, dtype=bool)),
            final_obs=self._final_obs(info) if np.any(truncated) else None,
            log={},
        )

    def reset_envs(self, envs: list[int]) -> dict[str, torch.Tensor]:
        """See `VecEnv.reset_envs`; each env's own random generator goes on."""
        found = [self._vec.envs[env].reset()[0] for env in envs]
        rows = [obs if isinstance(obs, dict) else {DEFAULT_GROUP: obs} for obs in found]
        return {
            group: torch.from_numpy(np.stack([row[group] for row in rows]).astype(s.dtype))
            for group, s in self.spec.obs.items()
        }

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """Advance each TimeLimit's clock by a random part of its limit; see `VecEnv`."""
        limits = [_time_limit(env) for env in self._vec.envs]
        if not self.spec.max_episode_length or None in limits:
            return False
        shape = (self.spec.num_envs,)
        times = torch.randint(self.spec.max_episode_length, shape, generator=generator)
        for limit, time in zip(limits, times.tolist(), strict=True):
            limit._elapsed_steps = time  # the wrapper has no public setter
        return True

    def state_dict(self) -> dict[str, Any] | None:
        """Physics, random generator and episode clock of envs we know; see `VecEnv`."""
        if not self.spec.has_state:
            return None
        return {"envs": [_env_state(env) for env in self._vec.envs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """See `VecEnv.load_state_dict`."""
        self._vec.reset()  # the wrappers refuse to step before a first reset
        rows = [_load_env_state(e, s) for e, s in zip(self._vec.envs, state["envs"], strict=True)]
        return self._to_groups(np.stack(rows))

    def render(self) -> np.ndarray:
        """See `VecEnv.render`."""
        env: Any = self._vec.envs[0]
        modes = env.metadata.get("render_modes", [])
        if "rgb_array" not in modes:
            found = ", ".join(map(str, modes)) or "none"
            raise RenderError(f"env.id={env.spec.id}: has no render mode rgb_array; it has {found}")
        try:
            return env.render()
        except gym.error.DependencyNotInstalled as e:
            raise RenderError(f"env.id={env.spec.id}: {e}") from e

    def close(self) -> None:
        """Close all envs."""
        self._vec.close()

    def _to_groups(self, obs: Any) -> dict[str, torch.Tensor]:
        # SyncVectorEnv(copy=True) has already made these arrays ours.
        groups = obs if isinstance(obs, dict) else {DEFAULT_GROUP: obs}
        return {name: torch.from_numpy(np.ascontiguousarray(groups[name])) for name in groups}

    def _final_obs(self, info: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Put the sparse final observations into dense rows; the other rows are zero."""
        out = {
            group: torch.zeros((self.spec.num_envs, *s.shape), dtype=getattr(torch, s.dtype))
            for group, s in self.spec.obs.items()
        }
        final_obs = info["final_obs"] if "final_obs" in info else info["final_observation"]
        for row, obs in enumerate(final_obs):
            if obs is not None:
                groups = obs if isinstance(obs, dict) else {DEFAULT_GROUP: obs}
                for group, rows in out.items():
                    rows[row] = torch.as_tensor(groups[group])
        return out


class _KeepFinalObs(gym.Wrapper):
    """Copies an episode's last observation: the env may rewrite it in the reset that follows."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            obs = deepcopy(obs)
        return obs, reward, terminated, truncated, info


def _same_step_autoreset() -> dict[str, Any]:
    """Arguments that make SyncVectorEnv reset in the step that ends an episode."""
    if "autoreset_mode" in inspect.signature(SyncVectorEnv.__init__).parameters:
        from gymnasium.vector import AutoresetMode  # type: ignore[attr-defined]

        return {"autoreset_mode": AutoresetMode.SAME_STEP}
    if gym.__version__.startswith("0."):
        return {}  # the only behaviour it has
    raise EnvError(f"Gymnasium {gym.__version__} cannot autoreset in the same step: install >= 1.1")


def _tensor_spec(name: str, space: gym.Space) -> TensorSpec:
    if not isinstance(space, spaces.Box):
        raise EnvError(f"obs group {name!r}: {space} is not supported; Box and Dict of Box are")
    return TensorSpec(space.shape, space.dtype.name)


def _time_limit(env: gym.Env) -> Any:
    """Return the TimeLimit wrapper of `env`, or None."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            return env
        env = env.env
    return None


# What one step of these envs reads besides its action.
_STATE_ATTRIBUTES: dict[type, Sequence[str]] = {
    PendulumEnv: ("state",),
    CartPoleEnv: ("state", "steps_beyond_terminated"),
}
# What gym.make wraps around every env; only TimeLimit has a state, its clock.
_STATELESS_WRAPPERS = (
    _KeepFinalObs,
    gym.wrappers.TimeLimit,
    gym.wrappers.OrderEnforcing,
    gym.wrappers.PassiveEnvChecker,
)


def _state_names(env: gym.Env) -> Sequence[str] | None:
    """Return the attributes that are `env`'s state, or None where there may be more to it."""
    if _time_limit(env) is None:
        return None
    layer = env
    while isinstance(layer, gym.Wrapper):
        if type(layer) not in _STATELESS_WRAPPERS:
            return None
        layer = layer.env
    return _STATE_ATTRIBUTES.get(type(env.unwrapped))


def _env_state(env: gym.Env) -> dict[str, Any]:
    values = {name: getattr(env.unwrapped, name) for name in _state_names(env) or ()}
    return {
        "physics": {k: np.asarray(v).tolist() if k == "state" else v for k, v in values.items()},
        "rng": env.unwrapped.np_random.bit_generator.state,
        "elapsed_steps": _time_limit(env)._elapsed_steps,
    }


def _load_env_state(env: gym.Env, state: Mapping[str, Any]) -> np.ndarray:
    raw: Any = env.unwrapped
    for name, value in state["physics"].items():
        setattr(raw, name, np.array(value) if name == "state" else value)
    raw.np_random.bit_generator.state = state["rng"]
    _time_limit(env)._elapsed_steps = state["elapsed_steps"]
    # Pendulum observes (cos, sin, speed); CartPole observes its state.
    obs = raw._get_obs() if hasattr(raw, "_get_obs") else np.array(raw.state)
    return obs.astype(np.float32)
