"""A task's own symmetry function, turned into data. Runs where the env lives, once, in `build`.

rsl_rl's `data_augmentation_func(env, obs, actions)` returns `[original, mirror 1, ...]`, one below
the other. Given the unit vectors it says which entry goes where and with which sign; random vectors
say whether that is all it does. The learner is given the answer and never the function.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from isaac_hydra_ext.config.mirrors import FUNCTION
from isaac_hydra_ext.envs.contract import EnvSpec, Mirror, VecEnv
from isaac_hydra_ext.errors import ConfigError, shown
from isaac_hydra_ext.system.entry_points import import_module

PROBES = 64  # random vectors
ACTION = "action"
Parts = dict[str, torch.Tensor]  # obs groups by name, and the action: [rows, size] each


def find_mirrors(env: VecEnv, name: str) -> tuple[Mirror, ...]:
    """Probe a task's function.

    Args:
        env: Built; the function is given its `task_env`, if it has one.
        name: `package.module:function`.

    Raises:
        ConfigError: It cannot be imported or called, or what it makes of an observation or action
            is no permutation with signs; says what differs.
    """
    spec, key = env.spec, f"{FUNCTION}={shown(name)}"
    if spec.action.kind != "continuous":
        raise ConfigError(f"{key}: needs continuous actions")
    inputs = _inputs(spec)
    try:
        function = _load(name)
        with torch.no_grad():
            copies = _called(function, getattr(env, "task_env", env), spec, inputs)
    except Exception as e:  # of the task's code
        raise ConfigError(f"{key}: {type(e).__name__}: {shown(e, 300)}") from e
    rows = inputs[ACTION].shape[0]
    counts = {part: out.shape[0] / rows for part, out in copies.items()}
    count = counts[ACTION]
    if count != int(count) or count < 2 or len(set(counts.values())) > 1:
        raise ConfigError(
            f"{key}: the original and as many mirrors of each group and of the action are expected "
            f"one below the other; of {rows} rows it made "
            + ", ".join(f"{int(n * rows)} ({part})" for part, n in counts.items())
        )
    for part, x in inputs.items():
        if not torch.equal(copies[part][:rows], x):
            raise ConfigError(f"{key}: its first copy of {part} is not the original")
    mirrors = []
    for copy in range(1, int(count)):
        mirrored = {part: out[copy * rows : (copy + 1) * rows] for part, out in copies.items()}
        found = dict(_permutations(inputs, mirrored, f"{key}: copy {copy}"))
        mirrors.append(Mirror(obs=found, action=found.pop(ACTION)))
    return tuple(mirrors)


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.replace(":", ".").rpartition(".")
    return getattr(import_module(module), attribute)


def _inputs(spec: EnvSpec) -> Parts:
    """Return a row of zeros, the unit vectors of all parts side by side, and random rows."""
    sizes = {
        group: s.shape[0]
        for group, s in spec.obs.items()
        if len(s.shape) == 1 and getattr(torch, s.dtype).is_floating_point
    }
    sizes[ACTION] = spec.action.dim
    total, draw = sum(sizes.values()), torch.Generator().manual_seed(0)
    random = torch.randn(PROBES, total, generator=draw)
    random *= 10.0 ** torch.randint(-2, 4, (PROBES, 1), generator=draw)
    rows = torch.cat([torch.zeros(1, total), torch.eye(total), random])
    return dict(zip(sizes, rows.split(list(sizes.values()), dim=1), strict=True))


def _called(function: Callable[..., Any], env: Any, spec: EnvSpec, inputs: Parts) -> Parts:
    """Return what the function makes of all rows, on the CPU."""
    device = getattr(env, "device", "cpu")
    given = {part: x.clone().to(device) for part, x in inputs.items()}
    action, rows = given.pop(ACTION), inputs[ACTION].shape[0]
    out, mirrored = {}, None
    if "obs_type" in inspect.signature(function).parameters:  # of rsl_rl before 3
        for group, x in given.items():
            out[group], mirrored = function(env=env, obs=x, actions=action, obs_type=group)
    else:
        from tensordict import TensorDict  # rsl_rl, whose functions these are, needs it too

        for group, s in spec.obs.items():
            empty = torch.zeros(rows, *s.shape, dtype=getattr(torch, s.dtype), device=device)
            given.setdefault(group, empty)
        found, mirrored = function(
            env=env, obs=TensorDict(_nested(given), batch_size=[rows]), actions=action
        )
        out = {part: found[tuple(part.split("/"))] for part in inputs if part != ACTION}
    return {part: x.to("cpu", torch.float32) for part, x in {**out, ACTION: mirrored}.items()}


def _nested(obs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return `group/term` as the term of a group, as the env has it."""
    tree: dict[str, Any] = {}
    for name, x in obs.items():
        group, slash, term = name.partition("/")
        if slash:
            tree.setdefault(group, {})[term] = x
        else:
            tree[group] = x
    return tree


def _permutations(
    inputs: Parts, mirrored: Parts, where: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a copy's signed permutation of each part.

    Raises:
        ConfigError: It is none.
    """
    names = [f"{part}[{i}]" for part, x in inputs.items() for i in range(x.shape[1])]
    first = 0
    for part, x in inputs.items():
        size, out = x.shape[1], mirrored[part]
        if out.shape[1] != size:
            raise ConfigError(f"{where}: {part} has {size} entries, its mirror {out.shape[1]}")
        offset, responses = out[0], out[1 : 1 + len(names)]  # [entries of all parts, size]
        own = responses[first : first + size]
        for j in range(size):
            from_own = own[:, j].nonzero().flatten().tolist()
            alone = len(from_own) == 1 == int(responses[:, j].count_nonzero())
            if offset[j] or not alone or abs(own[from_own[0], j]) != 1:
                raise ConfigError(
                    f"{where}: no permutation with signs: {part}[{j}] is "
                    f"{_sum(offset[j], responses[:, j] - offset[j], names)}"
                )
        index = own.abs().argmax(dim=0)
        if len(set(index.tolist())) < size:
            twice = max(index.tolist(), key=index.tolist().count)
            raise ConfigError(f"{where}: no permutation: {part}[{twice}] is taken more than once")
        sign = own[index, torch.arange(size)]
        expected, found = x[:, index] * sign, out
        if not torch.equal(expected, found):
            row, j = (expected != found).nonzero()[0].tolist()
            raise ConfigError(
                f"{where}: no permutation with signs: {part}[{j}] of a random vector is "
                f"{found[row, j]:g}, where {'-' * bool(sign[j] < 0)}{part}[{index[j]}] is "
                f"{expected[row, j]:g}"
            )
        yield part, tuple(((index + 1) * sign.long()).tolist())
        first += size


def _sum(offset: torch.Tensor, factors: torch.Tensor, names: list[str]) -> str:
    """Write an entry as a sum of others."""
    terms = [f"{factors[i]:g} {names[i]}" for i in factors.nonzero().flatten().tolist()[:4]]
    return " + ".join([*([f"{offset:g}"] if offset else []), *terms]) or "0 whatever is given"
