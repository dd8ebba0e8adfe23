"""Gymnasium's own checker on one env. Runs in the process of `appo check`."""

import re
import warnings
from collections.abc import Iterator

import gymnasium as gym
from gymnasium.utils.env_checker import check_env

from isaac_hydra_ext.config.schema import EnvConfig

# What it says and does not matter here: observations are normalised, actions bounded or squashed,
# what is returned is copied, and the wrappers are what `gymnasium.make` always adds.
HARMLESS = (
    "probably too (low|high)", "symmetric and normalized", "different from the unwrapped",
    "Not able to test alternative", "share an object",
)  # fmt: skip
COLOURS = re.compile(r"\x1b\[\d+m|WARN: ")


def complaints(env_config: EnvConfig) -> Iterator[tuple[bool, str]]:
    """Yield what `gymnasium.utils.env_checker.check_env` complains of, and whether it is wrong.

    Raises:
        Exception: Whatever the env itself raises.
    """
    env = gym.make(str(env_config.id), **env_config.kwargs)
    said: list[tuple[bool, str]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True)
        except (AssertionError, gym.error.Error) as e:
            said.append((True, str(e) or type(e).__name__))
    env.close()
    said += [(False, str(w.message)) for w in caught if issubclass(w.category, UserWarning)]
    for is_wrong, text in dict.fromkeys((is_wrong, COLOURS.sub("", t)) for is_wrong, t in said):
        if not any(re.search(pattern, text) for pattern in HARMLESS):
            yield is_wrong, " ".join(text.split())
