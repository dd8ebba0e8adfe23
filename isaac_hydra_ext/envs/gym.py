"""Gymnasium environments behind the contract. Lives in the process that hosts the simulation.

The loop over the envs is ours: Gymnasium's `SyncVectorEnv` means another autoreset in each of its
versions, copies every array twice, and costs more than stepping a CartPole.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import (
    EnvSpec,
    StepResult,
    TaskDescription,
    TensorSpec,
)
from isaac_hydra_ext.envs.imports import import_packages
from isaac_hydra_ext.envs.spaces import read_action_space
from isaac_hydra_ext.errors import (
    ConfigError,
    EnvError,
    EnvNotFoundError,
    MissingDependencyError,
    RenderError,
    did_you_mean,
)

DEFAULT_NUM_ENVS = 32
DEFAULT_GROUP = "policy"
# Those in which torch computes: its other unsigned ones cannot be indexed.
OBS_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


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


def describe(env_config: EnvConfig, device: str = "cpu") -> TaskDescription:
    """Resolve the id; see `TaskDescription`."""
    check_registered(env_config)
    return TaskDescription(DEFAULT_NUM_ENVS, {}, {"id": env_config.id, **env_config.kwargs})


def make(env_config: EnvConfig, *, num_envs: int, render: bool = False, **_: object) -> "GymVecEnv":
    """Build the vector env; see `Adapter.make`."""
    return GymVecEnv(env_config, num_envs, render)


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
            ConfigError: `kwargs` that the constructor does not take.
            EnvError: A space that is not supported.
            MissingDependencyError: It needs a package that is not there.
            RenderError: It does not know `render_mode`.
        """
        check_registered(env_config)
        kwargs = {**env_config.kwargs, **({"render_mode": "rgb_array"} if render else {})}
        try:
            self._envs = [gym.make(str(env_config.id), **kwargs) for _ in range(num_envs)]
        except TypeError as e:
            if render and "render_mode" in str(e):
                raise RenderError(
                    f"env.id={env_config.id}: its constructor takes no render_mode: no pictures"
                ) from e
            if env_config.kwargs and "unexpected keyword argument" in str(e):
                why = str(e).split(" was raised from")[0]  # Gymnasium adds the whole call
                raise ConfigError(f"env.kwargs: {' '.join(why.split())}") from e
            raise
        except (ImportError, gym.error.DependencyNotInstalled) as e:
            raise MissingDependencyError(
                f"env.id={env_config.id}: {' '.join(str(e).split())}"
            ) from e
        env = self._envs[0]
        action, self._first_choice = read_action_space(env.action_space)
        self._one_choice = isinstance(env.action_space, spaces.Discrete)
        obs_space = env.observation_space
        self._is_dict, groups = False, {DEFAULT_GROUP: obs_space}
        if isinstance(obs_space, spaces.Dict):
            self._is_dict, groups = True, dict(obs_space.spaces)
        limit = getattr(env.spec, "max_episode_steps", None)
        dt = getattr(env.unwrapped, "dt", None) or getattr(env.unwrapped, "tau", None)
        self.spec = EnvSpec(
            num_envs=num_envs,
            obs={name: _tensor_spec(name, space) for name, space in groups.items()},
            action=action,
            step_dt=float(dt) if isinstance(dt, (int, float)) else 0.0,
            max_episode_length=max(0, int(limit or 0)),  # Gymnasium 0.29 says -1 for none
            has_final_obs=True,
            has_state=all(_state_names(e) is not None for e in self._envs),
        )

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        """See `VecEnv.reset`; env i gets seed + i."""
        return self._to_groups([env.reset(seed=seed + i)[0] for i, env in enumerate(self._envs)])

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        """See `VecEnv.step`."""
        B = self.spec.num_envs
        reward_B, obs_B, finals = np.empty(B, np.float32), [], {}
        terminated_B, truncated_B = np.empty(B, bool), np.empty(B, bool)
        for b, (env, action) in enumerate(zip(self._envs, self._to_env(actions_BA), strict=True)):
            obs, reward_B[b], terminated, truncated, _ = env.step(action)
            terminated_B[b], truncated_B[b] = terminated, truncated
            if terminated or truncated:
                if truncated:
                    finals[b] = deepcopy(obs)  # the env may rewrite it in the reset that follows
                obs, _ = env.reset()
            obs_B.append(obs)
        return StepResult(
            obs=self._to_groups(obs_B),
            reward_B=torch.from_numpy(reward_B),
            terminated_B=torch.from_numpy(terminated_B),
            truncated_B=torch.from_numpy(truncated_B),
            final_obs=self._final_obs(finals) if finals else None,
            log={},
        )

    def _to_env(self, actions_BA: torch.Tensor) -> np.ndarray:
        """Return what each env is given: its row, or its one choice."""
        actions = actions_BA.numpy()
        if self.spec.action.kind == "continuous":
            return actions.astype(self._envs[0].action_space.dtype, copy=False)
        actions = actions + self._first_choice
        return actions[:, 0] if self._one_choice else actions

    def reset_envs(self, envs: list[int]) -> dict[str, torch.Tensor]:
        """See `VecEnv.reset_envs`; each env's own random generator goes on."""
        return self._to_groups([self._envs[env].reset()[0] for env in envs])

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """Advance each TimeLimit's clock by a random part of its limit; see `VecEnv`."""
        limits = [_time_limit(env) for env in self._envs]
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
        return {"envs": [_env_state(env) for env in self._envs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """See `VecEnv.load_state_dict`."""
        rows = []
        for env, its_state in zip(self._envs, state["envs"], strict=True):
            env.reset()  # the wrappers refuse to step before a first one
            rows.append(_load_env_state(env, its_state))
        return self._to_groups(rows)

    def render(self) -> np.ndarray:
        """See `VecEnv.render`."""
        env: Any = self._envs[0]
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
        for env in self._envs:
            env.close()

    def _to_groups(self, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Copy the observations of some envs into tensors of their own.

        Raises:
            EnvError: They are not of one shape, or not of the space's dtype.
        """
        groups = {}
        for name, s in self.spec.obs.items():
            parts = [row[name] for row in rows] if self._is_dict else rows
            try:
                array = np.array(parts).astype(s.dtype, casting="same_kind", copy=False)
            except (TypeError, ValueError) as e:
                raise EnvError(f"obs group {name!r}: not {s.dtype} of {s.shape}: {e}") from e
            groups[name] = torch.from_numpy(array)
        return groups

    def _final_obs(self, finals: Mapping[int, Any]) -> dict[str, torch.Tensor]:
        """Put the final observations of some envs into dense rows; the other rows are zero."""
        envs = list(finals)
        out = {}
        for group, rows in self._to_groups([finals[env] for env in envs]).items():
            out[group] = torch.zeros((self.spec.num_envs, *rows.shape[1:]), dtype=rows.dtype)
            out[group][envs] = rows
        return out


def _tensor_spec(name: str, space: gym.Space) -> TensorSpec:
    if not isinstance(space, spaces.Box):
        raise EnvError(f"obs group {name!r}: {space} is not supported; Box and Dict of Box are")
    if space.dtype.name not in OBS_DTYPES:
        raise EnvError(
            f"obs group {name!r}: {space.dtype.name} is not supported; have a wrapper turn it into "
            "float32 or uint8"
        )
    if 0 in space.shape:
        raise EnvError(f"obs group {name!r}: {space} is empty; leave the entry out")
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
