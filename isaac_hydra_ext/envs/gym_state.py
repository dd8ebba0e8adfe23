"""The state of Gymnasium envs that we know: physics, random generator and episode clock.

Lives in the process that hosts the simulation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv


def time_limit(env: gym.Env) -> Any:
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


def state_names(env: gym.Env) -> Sequence[str] | None:
    """Return the attributes that are `env`'s state, or None where there may be more to it."""
    if time_limit(env) is None:
        return None
    layer = env
    while isinstance(layer, gym.Wrapper):
        if type(layer) not in _STATELESS_WRAPPERS:
            return None
        layer = layer.env
    return _STATE_ATTRIBUTES.get(type(env.unwrapped))


def env_state(env: gym.Env) -> dict[str, Any]:
    """Return the state of an env that has `state_names`."""
    values = {name: getattr(env.unwrapped, name) for name in state_names(env) or ()}
    return {
        "physics": {k: np.asarray(v).tolist() if k == "state" else v for k, v in values.items()},
        "rng": env.unwrapped.np_random.bit_generator.state,
        "elapsed_steps": time_limit(env)._elapsed_steps,
    }


def load_env_state(env: gym.Env, state: Mapping[str, Any]) -> np.ndarray:
    """Take over what `env_state` returned; returns the observation of that moment."""
    raw: Any = env.unwrapped
    for name, value in state["physics"].items():
        setattr(raw, name, np.array(value) if name == "state" else value)
    raw.np_random.bit_generator.state = state["rng"]
    time_limit(env)._elapsed_steps = state["elapsed_steps"]
    # Pendulum observes (cos, sin, speed); CartPole observes its state.
    obs = raw._get_obs() if hasattr(raw, "_get_obs") else np.array(raw.state)
    return obs.astype(np.float32)
