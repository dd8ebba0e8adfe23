"""What a command line may ask of Hydra itself, checked before Hydra acts on it.

Runs in the learner's main thread, before `hydra.main` does. Hydra instantiates what its own node
names (callbacks, launchers, logging handlers) and copies environment variables into it. Installed
packages may do so; a YAML file or an override from elsewhere may not. So the configuration is
composed, which runs nothing, with everything the user gives and from installed packages alone:
whatever names code must be the same in both.
"""

import argparse
import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import (
    create_automatic_config_search_path,
    detect_calling_file_or_module_from_task_function,
    get_args_parser,
)
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from isaac_hydra_ext.cli.parser import near_flags
from isaac_hydra_ext.config.elsewhere import name_here
from isaac_hydra_ext.errors import ConfigError, shown

CONFIG_PATH, CONFIG_NAME = "pkg://isaac_hydra_ext.conf", "train_appo"
# Hydra, logging.config and os.environ make objects or variables of everything below these.
GUARDED = ("hydra.callbacks.", "hydra.job_logging.", "hydra.hydra_logging.", "hydra.job.env_")
READS_VARIABLE = re.compile(r"\$\{\s*(oc\.)?env\s*:|\$\{[^}:]*\$\{")
# What was typed, as text. What it sets is looked at where it sets it.
NOT_READ = ("hydra.overrides.", "hydra.job.override_dirname")


def check_hydra_node(arguments: Sequence[str], task: Callable[..., Any]) -> None:
    """Refuse code under `hydra.` that no installed package names.

    Args:
        arguments: Of the command line.
        task: The function that `hydra.main` has decorated.

    Raises:
        ConfigError: Names the key, or says in one line why nothing can be composed.
        HydraException: Hydra's own word on what cannot be composed.
    """
    args = _parse(arguments)
    if args.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun: not accepted; it would unpickle that file")
    if args.hydra_help or args.shell_completion:
        return  # Hydra instantiates nothing then
    where = detect_calling_file_or_module_from_task_function(inspect.unwrap(task))
    name = args.config_name or CONFIG_NAME
    given = _Composer(where, args.config_path or CONFIG_PATH, args.config_dir)
    installed = _Composer(where, CONFIG_PATH)
    own_files = args.config_dir or args.config_path or args.config_name
    untouched = not own_files and not any("hydra" in word for word in args.overrides)
    for node in given.hydra_nodes(name, args.overrides):
        if untouched:  # all of it is from installed packages
            continue
        usual = dict(_leaves(installed.usual_node(node["runtime"]["choices"]), "hydra."))
        for key, value in _leaves(node, "hydra."):
            if _is_guarded(key, value) and usual.get(key) != value:
                raise ConfigError(  # without the value: it may be an environment variable's
                    f"{key}: not accepted; only installed packages may have Hydra run code, "
                    "configure logging or use environment variables"
                )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the flags as Hydra will; its own parser would print its whole usage."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        args, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as e:
        raise ConfigError(shown(e)) from e
    modes = {"--cfg": args.cfg, "--multirun": args.multirun, "--run": args.run, "--info": args.info}
    if len(chosen := [flag for flag, value in modes.items() if value]) > 1:
        raise ConfigError(f"{' and '.join(chosen)}: one of them at a time")
    for flag, value in (("--resolve", args.resolve), ("--package", args.package)):
        if value and not args.cfg:
            raise ConfigError(f"{flag}: only with --cfg")
    for word in unknown:
        if not word.startswith("-"):
            raise ConfigError(f"{shown(word)}: give flags such as --cfg after all KEY=VALUE")
        flag = word.split("=")[0]
        known = [name for action in parser._actions for name in action.option_strings]
        near = near_flags(flag, [*known, "--partial", "--quiet"]) or name_here(flag, ())
        how = near or "; knobs are set as KEY=VALUE"
        raise ConfigError(f"{shown(flag)}: no such flag{how} (appo train --help)")
    return args


class _Composer:
    """Composes as `hydra.main` would, and does nothing more."""

    def __init__(
        self, where: tuple[str | None, str | None], path: str, directory: str | None = None
    ) -> None:
        search_path = create_automatic_config_search_path(*where, path)
        if directory is not None:
            if not os.path.isdir(directory):
                raise ConfigError(f"--config-dir={shown(directory)}: no such directory")
            anchor = SearchPathQuery(provider="schema")
            search_path.prepend("command-line", f"file://{os.path.abspath(directory)}", anchor)
        JobRuntime().set("name", "appo")  # composing asks for it
        self._loader = ConfigLoaderImpl(search_path)

    def hydra_nodes(self, name: str, overrides: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the `hydra` node of the whole command, and that of each set of swept files."""
        whole = self._compose(name, overrides, RunMode.MULTIRUN)
        yield whole
        params = whole["sweeper"].get("params") or {}
        swept = [f"{key}={value}" for key, value in params.items()]
        parsed = OverridesParser.create(self._loader).parse_overrides([*swept, *overrides])
        if not any(override.is_sweep_override() for override in parsed):
            return
        choices = []
        for override in parsed:
            if not override.is_sweep_override() or not override.is_discrete_sweep():
                choices.append([override.input_line])
                continue
            key = override.get_key_element()
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
            is_group = bool(self._loader.get_group_options(override.key_or_group))
            choices.append(values if is_group else values[:1])  # only files can hold other keys
        for combination in itertools.product(*choices):
            yield self._compose(name, list(combination), RunMode.RUN)

    def usual_node(self, choices: dict[str, Any]) -> dict[str, Any]:
        """Return the `hydra` node that these choices give without the user's files and values."""
        known = [
            f"{group}={choice}"
            for group, choice in choices.items()
            if group.startswith("hydra/") and choice in self._loader.get_group_options(group)
        ]
        return self._compose(CONFIG_NAME, known, RunMode.RUN)

    def _compose(self, name: str, overrides: list[str], mode: RunMode) -> dict[str, Any]:
        try:
            cfg = self._loader.load_configuration(
                name, overrides, mode, validate_sweep_overrides=False
            )
        except HydraException:
            raise
        except Exception as e:  # of every library that reads what the user wrote
            raise ConfigError(f"the configuration cannot be composed: {shown(e, 300)}") from e
        node = OmegaConf.to_container(cfg.hydra, resolve=False)
        assert isinstance(node, dict)
        return {str(key): value for key, value in node.items()}


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of everything below `node`."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(value, (dict, list)):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _is_guarded(key: str, value: Any) -> bool:
    if key.startswith(NOT_READ):
        return False
    # `${oc.env:HOME}`, `${env:HOME}`, and a resolver whose name is itself put together.
    names_variable = isinstance(value, str) and READS_VARIABLE.search(value) is not None
    return names_variable or key.startswith(GUARDED) or key.endswith("._target_")
