"""Gymnasium environments behind the contract. Lives in the process that hosts the simulation.

The loop over the envs is ours: Gymnasium's `SyncVectorEnv` means another autoreset in each of its
versions, copies every array twice, and costs more than stepping a CartPole.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import (
    EnvSpec,
    StepResult,
    TaskDescription,
    TensorSpec,
)
from isaac_hydra_ext.envs.episode_info import EpisodeInfo
from isaac_hydra_ext.envs.gym_ids import find_spec
from isaac_hydra_ext.envs.gym_state import env_state, load_env_state, state_names, time_limit
from isaac_hydra_ext.envs.spaces import read_action_space
from isaac_hydra_ext.errors import (
    ConfigError,
    EnvContractError,
    EnvError,
    MissingDependencyError,
    RenderError,
)

if TYPE_CHECKING:
    from isaac_hydra_ext.envs.viewing import Player

DEFAULT_NUM_ENVS = 32
DEFAULT_GROUP = "policy"
NUMBERS = (float, int, np.floating, np.integer)
OLD_GYM = (
    "is that of Gym before 0.26, not Gymnasium's; wrap the env, for instance with shimmy's "
    "GymV21CompatibilityV0"
)
# Those in which torch computes: its other unsigned ones cannot be indexed.
OBS_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


def describe(env_config: EnvConfig, device: str = "cpu") -> TaskDescription:
    """Resolve the id; see `TaskDescription`."""
    find_spec(env_config)
    return TaskDescription(DEFAULT_NUM_ENVS, {}, {"id": env_config.id, **env_config.kwargs})


def make(
    env_config: EnvConfig,
    *,
    num_envs: int,
    render: bool = False,
    view: bool = False,
    **_: object,
) -> "GymVecEnv":
    """Build the vector env; see `Adapter.make`."""
    return GymVecEnv(env_config, num_envs, render, view)


class GymVecEnv:
    """B copies of a Gymnasium env, stepped one after the other in this process."""

    def __init__(
        self, env_config: EnvConfig, num_envs: int, render: bool = False, view: bool = False
    ) -> None:
        """Build the envs.

        Args:
            env_config: `id`, `kwargs` and `imports` are read.
            num_envs: B.
            render: Make them with `render_mode=rgb_array`.
            view: Make the first so that `view` can show it.

        Raises:
            EnvNotFoundError: The id is not registered.
            ConfigError: `kwargs` that the constructor does not take.
            EnvError: A space that is not supported.
            MissingDependencyError: It needs a package that is not there.
            RenderError: It does not know `render_mode`.
        """
        find_spec(env_config)
        self._id = str(env_config.id)
        self._episode_info = EpisodeInfo()
        self._draws, self._last_picture = render, None  # of env 0's episode, in the step it ended
        kwargs = {**env_config.kwargs, **({"render_mode": "rgb_array"} if render else {})}
        try:
            self._envs = [gym.make(self._id, **kwargs) for _ in range(num_envs)]
            if view:
                again = partial(gym.make, self._id, **kwargs)
                from isaac_hydra_ext.envs import gym_viewer  # not in each worker

                self._envs[0] = gym_viewer.made_to_view(self._envs[0], again)
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
        env = self.task_env = self._envs[0]
        action, self._first_choice = read_action_space(env.action_space)
        self._one_choice = isinstance(env.action_space, spaces.Discrete)
        obs_space = env.observation_space
        self._is_dict, groups = False, {DEFAULT_GROUP: obs_space}
        if isinstance(obs_space, spaces.Dict):
            self._is_dict, groups = True, dict(obs_space.spaces)
        limit = getattr(env.spec, "max_episode_steps", None)
        self.spec = EnvSpec(
            num_envs=num_envs,
            obs={name: _tensor_spec(name, space) for name, space in groups.items()},
            action=action,
            step_dt=_step_seconds(env),
            max_episode_length=max(0, int(limit or 0)),  # Gymnasium 0.29 says -1 for none
            has_final_obs=True,
            has_state=all(state_names(e) is not None for e in self._envs),
        )

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        """Seed env i with seed + i."""
        self._last_picture = None
        return self._to_groups(
            [self._reset(env, seed=seed + i) for i, env in enumerate(self._envs)]
        )

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        B, self._last_picture = self.spec.num_envs, None
        reward_B, obs_B, finals = np.empty(B, np.float32), [], {}
        ended = []
        terminated_B, truncated_B = np.empty(B, bool), np.empty(B, bool)
        for b, (env, action) in enumerate(zip(self._envs, self._to_env(actions_BA), strict=True)):
            try:
                obs, reward, terminated, truncated, info = env.step(action)
            except ValueError as e:
                if "expected 5, got 4" in str(e):
                    raise EnvContractError(f"env.id={self._id}: step() {OLD_GYM}") from e
                raise
            reward_B[b] = reward if isinstance(reward, NUMBERS) else one_number(reward, b)
            terminated_B[b], truncated_B[b] = bool(terminated), bool(truncated)
            if terminated or truncated:
                ended.append(info)
                if truncated:
                    finals[b] = deepcopy(obs)  # the env may rewrite it in the reset that follows
                if self._draws and b == 0:
                    self._last_picture = _drawn(env)
                obs = self._reset(env)
            obs_B.append(obs)
        return StepResult(
            obs=self._to_groups(obs_B),
            reward_B=torch.from_numpy(reward_B),
            terminated_B=torch.from_numpy(terminated_B),
            truncated_B=torch.from_numpy(truncated_B),
            final_obs=self._final_obs(finals) if finals else None,
            log=self._episode_info.read(ended) if ended else {},
        )

    def _reset(self, env: gym.Env, seed: int | None = None) -> Any:
        """Return an env's first observation.

        Raises:
            EnvContractError: Its `reset` is that of Gym before 0.26.
        """
        try:
            found: Any = env.reset(seed=seed) if seed is not None else env.reset()
        except TypeError as e:
            if "'seed'" in str(e):
                raise EnvContractError(f"env.id={self._id}: reset() {OLD_GYM} ({e})") from e
            raise
        if not isinstance(found, tuple) or len(found) != 2:
            raise EnvContractError(f"env.id={self._id}: reset() {OLD_GYM}")
        return found[0]

    def _to_env(self, actions_BA: torch.Tensor) -> np.ndarray:
        """Return what each env is given: its row, or its one choice."""
        actions = actions_BA.numpy()
        if self.spec.action.kind == "continuous":
            return actions.astype(self._envs[0].action_space.dtype, copy=False)
        actions = actions + self._first_choice
        return actions[:, 0] if self._one_choice else actions

    def reset_envs(self, envs: list[int]) -> dict[str, torch.Tensor]:
        """Reset them without a seed: each env's own random generator goes on."""
        return self._to_groups([self._reset(self._envs[env]) for env in envs], envs)

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """Advance each TimeLimit's clock by a random part of its limit; see `VecEnv`."""
        limits = [time_limit(env) for env in self._envs]
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
        return {"envs": [env_state(env) for env in self._envs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        rows = []
        for env, its_state in zip(self._envs, state["envs"], strict=True):
            env.reset()  # the wrappers refuse to step before a first one
            rows.append(load_env_state(env, its_state))
        return self._to_groups(rows)

    def render(self) -> np.ndarray:
        """Show how env 0's episode ended after the step in which it did."""
        if self._last_picture is not None:
            return self._last_picture
        env: Any = self._envs[0]
        modes = env.metadata.get("render_modes", [])
        if "rgb_array" not in modes:
            found = ", ".join(map(str, modes)) or "none"
            raise RenderError(f"env.id={env.spec.id}: has no render mode rgb_array; it has {found}")
        try:
            return env.render()
        except gym.error.DependencyNotInstalled as e:
            raise RenderError(f"env.id={env.spec.id}: {e}") from e

    def view(self, player: "Player", open_page: Callable[[], Any]) -> None:
        """Show the first env; see `ViewableEnv`."""
        from isaac_hydra_ext.envs import gym_viewer

        gym_viewer.view(self._envs[0], self.spec.step_dt, player, open_page)

    def close(self) -> None:
        """Close all envs."""
        for env in self._envs:
            env.close()

    def _to_groups(
        self, rows: Sequence[Any], envs: Sequence[int] | None = None, what: str = ""
    ) -> dict[str, torch.Tensor]:
        """Copy the observations of some envs into tensors of their own.

        Args:
            rows: An env's each.
            envs: Which envs they are of; None: all.
            what: Which observations, for the message: `final `.

        Raises:
            EnvContractError: One is not of its space's shape or dtype; names group and env.
        """
        groups = {}
        for name, s in self.spec.obs.items():
            try:
                parts = [row[name] for row in rows] if self._is_dict else rows
                array = np.array(parts).astype(s.dtype, casting="same_kind", copy=False)
            except (IndexError, KeyError, TypeError, ValueError):
                array = None
            if array is None or array.shape[1:] != s.shape:
                raise self._wrong_obs(name, rows, envs or range(len(rows)), what)
            groups[name] = torch.from_numpy(array)
        return groups

    def _wrong_obs(
        self, name: str, rows: Sequence[Any], envs: Sequence[int], what: str
    ) -> EnvContractError:
        """Return the error of the first env whose part of a group is not what its space says."""
        s, why = self.spec.obs[name], "they cannot be joined"
        for env, row in zip(envs, rows, strict=True):
            try:
                part = np.asarray(row[name] if self._is_dict else row)
                part.astype(s.dtype, casting="same_kind")
            except (IndexError, KeyError, TypeError, ValueError) as e:
                why = f"env {env} " + ("lacks it" if isinstance(e, KeyError) else f"gave: {e}")
                break
            if part.shape != s.shape:
                why = f"env {env} gave {[*part.shape]} {part.dtype}"
                break
        return EnvContractError(f"{what}obs group {name!r}: expected {[*s.shape]} {s.dtype}, {why}")

    def _final_obs(self, finals: Mapping[int, Any]) -> dict[str, torch.Tensor]:
        """Put the final observations of some envs into dense rows; the other rows are zero."""
        envs = list(finals)
        out = {}
        rows_of = self._to_groups([finals[env] for env in envs], envs, "final ")
        for group, rows in rows_of.items():
            out[group] = torch.zeros((self.spec.num_envs, *rows.shape[1:]), dtype=rows.dtype)
            out[group][envs] = rows
        return out


def one_number(reward: Any, env: int) -> float:
    """Return the reward that a step gave as something else than a number.

    Raises:
        EnvContractError: It is more than one, or none.
    """
    found = np.asarray(reward)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise EnvContractError(
            f"the reward of env {env} has the shape {found.shape} and the dtype {found.dtype}; "
            "one number is expected"
        )
    return float(found.reshape(()))


def _step_seconds(env: gym.Env) -> float:
    """Return how long a step is [s]: as the physics says, else as it wants to be shown, else 0."""
    found = (getattr(env.unwrapped, name, None) for name in ("dt", "tau"))
    seconds = next((x for x in found if isinstance(x, (int, float)) and x > 0), 0.0)
    rate = env.metadata.get("render_fps")
    return float(seconds) or (1.0 / rate if isinstance(rate, (int, float)) and rate > 0 else 0.0)


def _drawn(env: Any) -> np.ndarray | None:
    """Return a picture if there is one; what is wrong is told where `render` is asked for it."""
    try:
        return env.render()
    except Exception:  # a graphics driver's, a user's own
        return None


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
