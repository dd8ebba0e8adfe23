"""Isaac Lab's flags, and what they mean here: Hydra overrides of this package's configuration.

Runs in the learner's process, which must not import isaaclab: the launcher's flags are a table of
our own, and a test compares it with the real parser where there is one.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.config.typed import typed_value
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import ALGORITHM_KEYS
from isaac_hydra_ext.envs.isaac.cfg import SELECTORS
from isaac_hydra_ext.errors import ConfigError, did_you_mean

# AppLauncher's flags: name -> argparse arguments. Their values go to `env.launcher`, untouched.
LAUNCHER_FLAGS: dict[str, dict[str, Any]] = {
    "--headless": {"action": "store_true", "help": "no window; train has none but for --viz"},
    "--livestream": {"type": int, "choices": (0, 1, 2), "help": "stream worker 0"},
    "--enable_cameras": {"action": "store_true", "help": "render camera sensors"},
    "--xr": {"action": "store_true", "help": "XR mode"},
    "--visualizer": {"help": "of worker 0: kit,newton_gl,newton_rtx,rerun,viser or none"},
    "--verbose": {"action": "store_true", "help": "verbose log of the simulation app"},
    "--info": {"action": "store_true", "help": "info log of the simulation app"},
    "--experience": {"help": "experience file of the simulation app"},
    "--deterministic": {"action": "store_true", "help": "reproducible rendering (3.0)"},
    "--rendering_mode": {"choices": ("performance", "balanced", "quality"), "help": "RTX preset"},
    "--kit_args": {"help": "arguments for Kit, as one string"},
    "--anim_recording_enabled": {"action": "store_true", "help": "record USD animations"},
    "--anim_recording_start_time": {"type": float, "help": "[s]"},
    "--anim_recording_stop_time": {"type": float, "help": "[s]"},
    "--max_visible_envs": {"type": int, "help": "envs that visualizers show"},
}
ALIASES = {"--visualizer": ["--viz"]}
# rsl_rl's names after `agent.` -> ours.
RSL_RL_KEYS = {
    **{f"algorithm.{theirs}": f"ppo.{ours}" for theirs, ours in ALGORITHM_KEYS.items()},
    "algorithm.gradient_length": "distillation.gradient_length",
    "algorithm.loss_type": "distillation.loss",
    "policy.student_hidden_dims": "policy.hidden_dims",
    "student.hidden_dims": "policy.hidden_dims",
    "policy.actor_hidden_dims": "policy.hidden_dims",
    "policy.init_noise_std": "policy.init_std",
    "actor.hidden_dims": "policy.hidden_dims",
    "actor.activation": "policy.activation",
    "actor.obs_normalization": "policy.normalize_obs",
    "critic.hidden_dims": "policy.critic_hidden_dims",
    "critic.obs_normalization": "policy.normalize_critic_obs",
    "empirical_normalization": "policy.normalize_obs",
    "clip_actions": "policy.clip_actions",
    "obs_groups": "policy.obs_groups",
    "num_steps_per_env": "rollout.steps_per_env",
    "max_iterations": "experiment.max_iterations",
    "seed": "experiment.seed",
    "device": "experiment.device",
    "experiment_name": "experiment.name",
    "run_name": "experiment.run_name",
    "save_interval": "checkpoint.every",
    "logger": "logging.backends",
}
HYDRA_FLAGS = (
    "--cfg", "-c", "--resolve", "--package", "-p", "--multirun", "-m",
    "--config-dir", "-cd", "--config-name", "-cn", "--hydra-help",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Raises `ConfigError` instead of ending the process; flags are never abbreviated."""

    def __init__(self, prog: str, description: str) -> None:
        """Add the flags that `train` and `play` share."""
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.add_argument("--task", help="task id; both Isaac-X-v0 and Isaac-X are found")
        self.add_argument("--num_envs", type=int, help="environments of a learner, in all")
        self.add_argument("--seed", type=int, help="-1 draws one")
        self.add_argument("--device", help="of the simulation; unset: the task's own")
        self.add_argument("--checkpoint", help="a path, latest or best; with --resume a regex")
        self.add_argument("--video", action="store_true", help="record worker 0")
        self.add_argument("--video_length", type=int, default=200, help="[steps]")
        self.add_argument("--disable_fabric", action="store_true", help="USD instead of Fabric")
        self.add_argument("--import", dest="imports", action="append", default=[], metavar="PKG",
                          help="package that registers tasks; may be repeated")  # fmt: skip
        self.add_argument(
            "--external_callback", help="package.module.function that registers tasks"
        )
        launcher = self.add_argument_group("AppLauncher's")
        for name, arguments in LAUNCHER_FLAGS.items():
            launcher.add_argument(name, *ALIASES.get(name, []), **arguments)

    def error(self, message: str) -> NoReturn:
        """Report as every other bad input is."""
        raise ConfigError(message)

    def parse(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the flags, and the remaining tokens, which are Hydra's.

        Raises:
            ConfigError: An unknown flag, with the nearest name.
        """
        flags, rest = self.parse_known_args(_fused_kit_args(arguments))
        for token in rest:
            name = token.split("=", 1)[0]
            if name.startswith("-") and name not in HYDRA_FLAGS:
                known = [o for action in self._actions for o in action.option_strings]
                raise ConfigError(f"{name}: unknown flag{did_you_mean(name, known)}")
        return flags, rest


def _fused_kit_args(arguments: Sequence[str]) -> list[str]:
    """Join `--kit_args --x` to one token: argparse would take its value for a flag."""
    fused: list[str] = []
    for token in arguments:
        if fused and fused[-1] == "--kit_args" and token.startswith("-"):
            fused[-1] = f"--kit_args={token}"
        else:
            fused.append(token)
    return fused


def shared_overrides(flags: argparse.Namespace) -> list[str]:
    """Return the overrides of the flags that `train` and `play` share."""
    found = [f"env.task={quoted(flags.task)}"] if flags.task else []
    if flags.seed is not None:
        found.append(f"experiment.seed={flags.seed}")
    if flags.device:
        found.append(f"rollout.device={quoted(flags.device)}")
    if flags.disable_fabric:
        found.append("++env.cfg.sim.use_fabric=false")
    if imports := imports_asked(flags):
        found.append(f"env.imports=[{','.join(quoted(name) for name in imports)}]")
    for name in LAUNCHER_FLAGS:
        key = name.removeprefix("--")
        value = getattr(flags, key)
        if value is not None and value is not False:
            shown = "true" if value is True else quoted(value)
            found.append(f"++env.launcher.{key}={shown}")
    return found


def imports_asked(flags: argparse.Namespace, tokens: Sequence[str] = ()) -> list[str]:
    """Return what `--import` and `--external_callback` name; without them, `env.imports=[...]`.

    Raises:
        ConfigError: That is not a list.
    """
    imports = [*flags.imports]
    if flags.external_callback:
        module, _, function = flags.external_callback.rpartition(".")
        imports.append(f"{module}:{function}")
    wrong = "env.imports: a list is expected: env.imports=[my_pkg.tasks]"
    try:
        typed = value_of("env.imports", tokens)
    except ConfigError as e:
        raise ConfigError(f"{wrong} ({e})") from e
    if imports or typed is None:
        return imports
    if not isinstance(typed, list):
        raise ConfigError(wrong)
    return [str(name) for name in typed]


def quoted(value: Any) -> str:
    """Return a value as Hydra reads it back: numbers bare, text in quotes where it needs them."""
    text = str(value)
    if isinstance(value, (int, float)) or re.fullmatch(r"[\w\-./:]+", text):
        return text
    return "'" + text.replace("'", "\\'") + "'"


def hydra_tokens(tokens: Sequence[str]) -> list[str]:
    """Rewrite Isaac Lab's spelling of overrides to this package's.

    `env.decimation=4` is the task's own cfg, `physics=NAME` a selector, `agent.*` our root.

    Raises:
        ConfigError: A name of rsl_rl's, with ours.
    """
    return [_hydra_token(token) for token in tokens]


def _hydra_token(token: str) -> str:
    found = re.fullmatch(r"([+~]*)([^=]*)(?:=(.*))?", token, re.DOTALL)
    assert found
    prefix, key, value = found[1], found[2], found[3]
    if token.startswith("-"):
        return token
    section, _, rest = key.partition(".")
    if key in SELECTORS:
        return f"env.{key}={f'[{value}]' if key == 'presets' and value[:1] != '[' else value}"
    if section == "env" and rest and rest.split(".")[0] not in OUR_ENV_KEYS:
        return f"++env.cfg.{rest}={'null' if prefix == '~' else value}"
    if section == "agent" and rest:
        if rest in RSL_RL_KEYS or rest.split(".")[0] in ("algorithm", "actor", "critic"):
            ours = RSL_RL_KEYS.get(rest)
            hint = f"use {ours}" if ours else "rsl_rl's; appo train --help lists the knobs here"
            raise ConfigError(f"{key}: {hint}")
        return f"{prefix}{rest}" + ("" if value is None else f"={value}")
    return token


OUR_ENV_KEYS = [f.name for f in fields(EnvConfig)]


def value_of(key: str, tokens: Sequence[str]) -> Any:
    """Return what the last token says about `key`, or None; flags among them say nothing.

    Raises:
        ConfigError: An override that Hydra cannot read.
    """
    return typed_value(key, [t for t in tokens if "=" in t and not t.startswith("-")])
