"""Isaac Lab's own configuration of a task: its presets, overrides, and the trainers' cfgs.

Runs in the process that hosts the simulation, after `isaac_launch.Runtime` has filled the registry.
Isaac Lab applies the presets; overrides are set here, because it accepts misspelt names and values
of the wrong type in silence.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.agent_cfgs.choice import agent_key, agents_of, trainer_of
from isaac_hydra_ext.envs.isaac.generation import Generation, has_kit
from isaac_hydra_ext.envs.isaac.host import first_line
from isaac_hydra_ext.envs.isaac.ids import APPO_ENTRY, ENV_ENTRY, is_play_id
from isaac_hydra_ext.envs.isaac.launch import as_plain, explained
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError, did_you_mean

# 3.0's earlier names of physics presets, which it still takes.
OLD_PRESETS = {"newton": "newton_mjwarp", "kamino": "newton_kamino"}
SELECTORS = ("physics", "renderer", "presets")


@dataclass
class TaskConfigs:
    """What a task is configured with.

    Attributes:
        task: Its id, in the form that is registered.
        env: Isaac Lab's env cfg, resolved, with the user's overrides.
        agent: The agent cfg of another trainer as plain data, or None.
        appo: What its author recommends for this trainer, as plain data, or None.
        physics: Names of its physics presets.
        chosen: The one of them that was taken unasked, as its own physics needs Kit.
        trainer: Whose `agent` is.
    """

    task: str
    env: Any
    agent: dict[str, Any] | None
    appo: dict[str, Any] | None
    physics: list[str]
    chosen: str | None = None
    trainer: str | None = None

    @property
    def notes(self) -> list[str]:
        """What to tell of `chosen` and of `trainer`."""
        notes = []
        if self.chosen is not None:
            notes.append(
                f"env.physics={self.chosen}: the task's own physics needs Isaac Sim, not found here"
            )
        if self.trainer not in (None, "rsl_rl"):
            notes.append(f"env.agent={self.trainer}: {self.task} is trained as that cfg says")
        return notes


def list_presets(task: str) -> dict[str, list[str]]:
    """Return a task's preset names by selector (`physics`, `renderer`, `presets`); 2.x has none."""
    try:
        module = importlib.import_module("isaaclab_tasks.utils.preset_cli")
    except ImportError:
        return {}
    found = module.enumerate_task_presets(task) or {}
    return {target.value: sorted(names) for target, names in found.items()}


def resolve(
    env_config: EnvConfig, task: str, generation: Generation, play: bool = False
) -> TaskConfigs:
    """Load a task's configurations, apply presets, then the user's overrides.

    Args:
        env_config: `agent`, the selectors and `cfg` are read.
        task: From `find_task`.
        generation: Says who applies presets, and how.
        play: Apply the task's `play_mode()` where it has one, unless the id is its `-Play` one.

    Raises:
        ConfigError: A preset, a path or a type that the task does not have.
        MissingDependencyError: Its cfg cannot be imported in this Isaac Lab.
    """
    entries = gym.spec(task).kwargs or {}
    play = play and not is_play_id(task)  # such a cfg is made for it already
    key = agent_key(env_config.agent, entries, task)
    chosen = None
    with explained(f"env.task={task}"):
        _import_cfg(entries[ENV_ENTRY], task)
        presets = list_presets(task)
        _check_selectors(env_config, task, presets)
        if generation is Generation.V2:
            env, agent, rest = _resolve_variants(env_config, task, key)
        else:
            env, agent, rest = _resolve_presets(env_config, task, key, play)
            chosen = _without_kit(env_config, env, presets.get("physics", []))
            if chosen:
                env_config = dataclasses.replace(env_config, physics=chosen)
                env, agent, rest = _resolve_presets(env_config, task, key, play)
        if play and generation is Generation.V2 and hasattr(env, "play_mode"):
            env.play_mode()
        appo = _load(task, APPO_ENTRY) if APPO_ENTRY in entries else None
    for path, value in rest:
        set_path(env, path, value)
    plain = _plain(agent)
    trainer = None if plain is None else trainer_of(plain)
    if plain is not None and trainer is None:
        raise ConfigError(f"env.agent={key}: not a trainer's cfg; {agents_of(entries, task)}")
    physics = presets.get("physics", [])
    return TaskConfigs(task, env, plain, _plain(appo), physics, chosen, trainer)


def _import_cfg(entry: Any, task: str) -> None:
    """Import the module of a task's cfg; else Isaac Lab would find no presets and not say why."""
    if isinstance(entry, str):
        try:
            importlib.import_module(entry.partition(":")[0])
        except ImportError as e:
            raise MissingDependencyError(
                f"env.task={task}: this Isaac Lab cannot import its cfg: {first_line(e)}"
            ) from e


def _load(task: str, entry: str) -> Any:
    parse_cfg = importlib.import_module("isaaclab_tasks.utils.parse_cfg")
    return parse_cfg.load_cfg_from_registry(task, entry)


def _check_selectors(
    env_config: EnvConfig, task: str, presets: Mapping[str, Sequence[str]]
) -> None:
    """Refuse a preset that the task does not have; Isaac Lab's own message is twenty lines."""
    for selector in SELECTORS:
        asked = getattr(env_config, selector)
        everything = sorted({name for names in presets.values() for name in names})
        known = everything if selector == "presets" else list(presets.get(selector, []))
        for name in asked if isinstance(asked, list) else [asked] if asked else []:
            if OLD_PRESETS.get(name, name) not in known:
                there = f"it has {', '.join(known)}" if known else "it has none"
                raise ConfigError(
                    f"env.{selector}={name}: {task} has no such preset"
                    f"{did_you_mean(name, known)}; {there}"
                )


def _without_kit(env_config: EnvConfig, env: Any, physics: Sequence[str]) -> str | None:
    """Return the physics preset to take where Kit is needed and missing, and nobody has chosen."""
    needs_kit = type(env.sim.physics).__name__ not in ("NewtonCfg", "OvPhysxCfg")
    asked = env_config.physics or set(env_config.presets) & set(physics)
    asked = asked or "physics" in (env_config.cfg.get("sim") or {})
    if asked or not needs_kit or has_kit():
        return None
    newton = [name for name in physics if name.startswith("newton_")]
    return min(newton, key=lambda name: (name != "newton_mjwarp", name), default=None)


def _resolve_presets(
    env_config: EnvConfig, task: str, agent_key: str, play: bool
) -> tuple[Any, Any, list[tuple[str, Any]]]:
    """3.0: hand Isaac Lab the presets, and keep what is left of the overrides."""
    hydra_utils = importlib.import_module("isaaclab_tasks.utils.hydra")
    groups = hydra_utils.collect_presets(_load(task, ENV_ENTRY))
    tokens = [f"{s}={v}" for s in ("physics", "renderer") if (v := getattr(env_config, s))]
    if env_config.presets:
        tokens.append(f"presets={','.join(env_config.presets)}")
    rest = []
    for path, value in leaves(env_config.cfg):
        if path in groups and isinstance(value, str):
            if OLD_PRESETS.get(value, value) not in groups[path]:
                raise ConfigError(
                    f"env.cfg.{path}={value}: no such preset{did_you_mean(value, groups[path])}; "
                    f"there are {', '.join(groups[path])}"
                )
            tokens.append(f"env.{path}={value}")
        else:
            rest.append((path, value))
    try:
        env, agent = hydra_utils.resolve_task_config(
            task, agent_key or None, play_mode=play, overrides=tokens
        )
    except ValueError as e:
        raise ConfigError(f"env.task={task} with {' '.join(tokens)}: {first_line(e)}") from e
    return env, agent, rest


def _resolve_variants(
    env_config: EnvConfig, task: str, agent_key: str
) -> tuple[Any, Any, list[tuple[str, Any]]]:
    """2.x: a cfg may hold `variants` {path: {name: node}}, of which one replaces the node."""
    env = _load(task, ENV_ENTRY)
    agent = _load(task, agent_key) if agent_key else None
    variants = getattr(env, "variants", None) or {}
    rest = []
    for path, value in leaves(env_config.cfg):
        if path in variants and isinstance(value, str):
            if value not in variants[path]:
                raise ConfigError(
                    f"env.cfg.{path}={value}: no such variant"
                    f"{did_you_mean(value, variants[path])}; there are {', '.join(variants[path])}"
                )
            *parents, leaf = path.split(".")
            _set_child(_walk(env, parents), leaf, variants[path][value])
        else:
            rest.append((path, value))
    if variants:
        del env.variants
    return env, agent, rest


# ---------------------------------------------------------------- overrides


def leaves(tree: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Return (dotted path, value) of each leaf, in order; an empty group is a leaf."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found += leaves(value, f"{path}{key}.")
        else:
            found.append((f"{path}{key}", value))
    return found


def set_path(cfg: Any, path: str, value: Any) -> None:
    """Set one existing value of a cfg tree (attributes, mapping keys, list indices).

    Raises:
        ConfigError: Names the nearest field, or the type that is expected.
    """
    parts, owner = path.split("."), cfg
    for depth, part in enumerate(parts):
        if part not in (names := _children(owner)):
            where = ".".join(["env.cfg", *parts[: depth + 1]])
            hint = did_you_mean(part, names) or f"; there are {_some(names)}"
            raise ConfigError(f"{where}: the task has no such setting{hint}")
        if depth < len(parts) - 1:
            owner = _child(owner, part)
    new = fitted(_child(owner, part), value, f"env.cfg.{path}", _annotation(owner, part))
    _set_child(owner, part, new)


def fitted(old: Any, new: Any, key: str, annotation: str = "") -> Any:
    """Return `new` in the type of the value it replaces.

    Args:
        old: What is there now. None, MISSING and code (named by text) tell no type.
        new: Plain data from a config.
        key: For the message.
        annotation: The field's declared type as text; says whether None is one of its values.

    Raises:
        ConfigError: The types do not go together.
    """
    number = isinstance(new, (int, float)) and not isinstance(new, bool)
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return type(old)(_fitted_items(old, new, key))
    if isinstance(old, float) and number:
        return float(new)
    if callable(old) and isinstance(new, str):
        return _named_code(new, key)
    if new is None:
        # Isaac Lab's way to drop a term or a sensor is to set its cfg to None.
        fits = old is None or dataclasses.is_dataclass(old) or "None" in annotation
        fits = fits or "Optional" in annotation
    elif old is None or old is dataclasses.MISSING:
        fits = True  # nothing says what is expected
    elif isinstance(old, bool) or isinstance(new, bool):
        fits = isinstance(old, bool) and isinstance(new, bool)
    else:
        fits = any(isinstance(old, t) and isinstance(new, t) for t in (int, str, Mapping))
        fits = fits or isinstance(old, int) and number and "float" in annotation
    if fits:
        return new
    if dataclasses.is_dataclass(old):
        raise ConfigError(f"{key}={new!r}: a group of settings; there are {_some(_children(old))}")
    raise ConfigError(
        f"{key}={new}: {'null' if new is None else type(new).__name__} does not fit; it is "
        f"{old!r} ({type(old).__name__})"
    )


def _fitted_items(old: Sequence[Any], new: Sequence[Any], key: str) -> list[Any]:
    """Fit a sequence item by item; one of another length is compared with the first item."""
    samples = old if len(old) == len(new) else [old[0] if old else None] * len(new)
    pairs = zip(samples, new, strict=True)
    return [fitted(o, n, f"{key}.{i}") for i, (o, n) in enumerate(pairs)]


def _named_code(name: str, key: str) -> Any:
    """Return the function or class that `package.module:name` names."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"{key}={name}: name code as package.module:name ({e})") from e


def _annotation(owner: Any, name: str) -> str:
    for cls in type(owner).__mro__:
        if name in (found := vars(cls).get("__annotations__", {})):
            return str(found[name])
    return ""


def _children(node: Any) -> list[str]:
    """Return the names below a cfg node."""
    if isinstance(node, Mapping):
        return [str(k) for k in node]
    if isinstance(node, (list, tuple)):
        return [str(i) for i in range(len(node))]
    if dataclasses.is_dataclass(node):
        declared = [f.name for f in dataclasses.fields(node)]
        return declared + [n for n in vars(node) if n not in declared]
    return []


def _child(node: Any, name: str) -> Any:
    if isinstance(node, Mapping):
        return node[name]
    return node[int(name)] if isinstance(node, (list, tuple)) else getattr(node, name)


def _set_child(node: Any, name: str, value: Any) -> None:
    if isinstance(node, dict):
        node[name] = value
    elif isinstance(node, list):
        node[int(name)] = value
    else:
        setattr(node, name, value)


def _walk(node: Any, names: Sequence[str]) -> Any:
    for name in names:
        node = _child(node, name)
    return node


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown}, ..." if len(names) > 8 else shown or "none below it"


def _plain(cfg: Any) -> dict[str, Any] | None:
    """Turn a trainer's cfg (a configclass, a dict of a YAML file) into plain data.

    Fields that nobody has set are left out: `to_dict()` makes an empty dict of each `MISSING`.
    """
    return None if cfg is None else _without_missing(cfg)


def _without_missing(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(k): _without_missing(v) for k, v in value.items() if not _is_missing(v)}
    if isinstance(value, (list, tuple)):
        return [_without_missing(v) for v in value]
    return as_plain(value)


def _is_missing(value: Any) -> bool:
    return isinstance(value, type(dataclasses.MISSING))
