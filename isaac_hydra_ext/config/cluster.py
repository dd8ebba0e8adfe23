"""`cluster.placement`: which GPU of which node learns, which simulate, which one evaluates.

Runs in the learner's process, before any other exists. The grammar is RLinf's, read as ours:

    {learner: 0-1, env: 2-7}            GPUs, counted through all nodes
    {learner: 0:0-1, env: 1:0-7}        NODES:GPUS, each node's counted from 0
    {learner: 0, env: cpu, evaluator: 1}
    {actor: all, env: all}              each GPU simulates and learns, in one process
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isaac_hydra_ext.errors import ConfigError, did_you_mean, first_line, shown

KEY = "cluster.placement"
ROLES = ("learner", "env", "evaluator")
# RLinf's components: the role that each is a part of here, and why.
THEIRS = {
    "actor": ("learner", ""),
    "rollout": ("env", "a policy acts where its env is"),
    "inference": ("learner", "the update computes these log-probs itself"),
    "critic": ("learner", "it learns with the actor"),
    "reward": ("env", "the env computes its rewards"),
}
PART = re.compile(r"(?:(\d+(?:-\d+)?|all):)?(\d+(?:-\d+)?|all|cpu)")


@dataclass(frozen=True, order=True)
class Place:
    """A GPU of a node, in that node's numbering; `gpu` None: the node's CPU."""

    node: int
    gpu: int | None

    @property
    def device(self) -> str:
        """Return what PyTorch calls it on its node."""
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"

    def __str__(self) -> str:
        """Return e.g. `1:3`, as it can be written in a placement."""
        return f"{self.node}:{'cpu' if self.gpu is None else self.gpu}"


@dataclass(frozen=True)
class Rank:
    """A learner and what simulates for it.

    Attributes:
        learner: Where it learns.
        simulations: A worker each. Empty: it simulates in its own process, on its own GPU.
    """

    learner: Place
    simulations: tuple[Place, ...]


@dataclass(frozen=True)
class Placement:
    """A placement, read.

    Attributes:
        ranks: One or more, in order.
        evaluator: Where evaluations are played; None: where `evaluate.device` says.
        notes: What components of RLinf's became, a line each.
    """

    ranks: tuple[Rank, ...]
    evaluator: Place | None
    notes: tuple[str, ...]


def read_placement(
    placement: Mapping[str, Any] | str, num_nodes: int, gpus_per_node: int
) -> Placement:
    """Read a placement for a cluster.

    Args:
        placement: By role; or the same as YAML in a text, which may join roles: `actor,env: all`.
        num_nodes: Of the cluster.
        gpus_per_node: Each node has as many as this one.

    Raises:
        ConfigError: In one line: what makes no sense.
    """
    places: dict[str, list[Place]] = {}
    notes = []
    for name, value in _by_component(placement):
        role, why = THEIRS.get(name, (name, ""))
        if role not in ROLES:
            hint = did_you_mean(name, (*ROLES, *THEIRS)) or f"; there are {', '.join(ROLES)}"
            raise ConfigError(f"{KEY}.{shown(name)}: no such part{hint}")
        named = _places(f"{KEY}.{name}", value, num_nodes, gpus_per_node)
        if why:
            notes.append(f"{KEY}.{name}: is a part of {role} here, as {why}")
        places[role] = sorted({*places.get(role, ()), *named}, key=by_node)
    learner, env = places.get("learner"), places.get("env")
    evaluator = places.get("evaluator", [])
    if len(evaluator) > 1:
        raise ConfigError(f"{KEY}.evaluator={_written(evaluator)}: there is one; name one GPU")
    if learner is None or env is None:
        missing = "env" if env is None else "learner"
        raise ConfigError(f"{KEY}: says nothing of {missing}; name GPUs or cpu for it")
    evaluates = evaluator[0] if evaluator else None
    return Placement(tuple(_ranks(learner, env)), evaluates, tuple(notes))


def _by_component(placement: Mapping[str, Any] | str) -> Iterable[tuple[str, Any]]:
    """Yield (component, value); `actor,env: all` names two."""
    if isinstance(placement, str):
        import yaml  # not for the doctor, which must start without it

        try:
            placement = yaml.safe_load(placement)
        except yaml.YAMLError as e:
            raise ConfigError(f"{KEY}={shown(str(placement))}: {first_line(e)}") from e
    if not isinstance(placement, Mapping):
        raise ConfigError(f"{KEY}={shown(str(placement))}: write {{learner: 0, env: 1-3}}")
    waiting: list[str] = []  # YAML reads `{actor, env: all}` as an actor without a value
    for names, value in placement.items():
        waiting += [name.strip() for name in str(names).split(",")]
        if value is not None:
            yield from ((name, value) for name in waiting)
            waiting = []
    if waiting:
        raise ConfigError(f"{KEY}.{shown(waiting[0])}: name GPUs: 0, 0-3, [0,2], all, or cpu")


def _places(key: str, value: Any, num_nodes: int, gpus: int) -> list[Place]:
    """Read `0-3`, `[0, 2-3]`, `all`, `cpu` and `NODES:` before any of these."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    said, places = f"{key}={shown(text)}", []
    for part in text.split(","):
        match = PART.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"{said}: name GPUs: 0, 0-3, [0,2], all, cpu, or NODE:GPUS, 1:0-3")
        nodes, indices = match.groups()
        if nodes is None and indices != "cpu":
            numbers = _numbers(said, indices, num_nodes * gpus, "GPUs in the cluster")
            places += [Place(number // gpus, number % gpus) for number in numbers]
            continue
        for node in _numbers(said, nodes or "0", num_nodes, "nodes (cluster.num_nodes)"):
            if indices == "cpu":
                places.append(Place(node, None))
            else:
                numbers = _numbers(said, indices, gpus, "GPUs on each node")
                places += [Place(node, number) for number in numbers]
    twice = [place for index, place in enumerate(places) if place in places[:index]]
    if twice:
        what = f"GPU {twice[0]}" if twice[0].gpu is not None else f"the CPU of node {twice[0].node}"
        raise ConfigError(f"{said}: names {what} twice")
    return places


def _numbers(said: str, text: str, count: int, what: str) -> range:
    """Read `all`, `3` or `0-3`, all of them below `count`."""
    first, _, last = text.partition("-")
    numbers = range(count) if text == "all" else range(int(first), int(last or first) + 1)
    if not numbers:
        why = f"there are 0 {what}" if text == "all" else f"{last} comes before {first}"
        raise ConfigError(f"{said}: names nothing: {why}")
    if numbers[-1] >= count:
        raise ConfigError(f"{said}: {numbers[-1]} is not there: there are {count} {what}, from 0")
    return numbers


def _ranks(learner: Sequence[Place], env: Sequence[Place]) -> Iterable[Rank]:
    """Give each learner what simulates for it, of its own node."""
    if set(learner) == set(env) and env[0].gpu is not None:
        yield from (Rank(place, ()) for place in learner)
        return
    gpus = [place for place in env if place.gpu is not None]
    if shared := sorted(set(learner).intersection(gpus), key=by_node):
        raise ConfigError(
            f"{KEY}: GPU {shared[0]} learns and simulates, and others do one of the two: processes "
            "on one GPU only take turns; have all of them do both, or none"
        )
    if gpus and len(gpus) < len(env):
        raise ConfigError(f"{KEY}.env={_written(env)}: simulates on GPUs or on CPUs, not on both")
    learning_nodes = {place.node for place in learner}
    if not {place.node for place in env} <= learning_nodes:
        if len(learner) > 1:
            raise ConfigError(
                f"{KEY}.env={_written(env)}: simulates on nodes where nobody learns; only one "
                "learner can have workers there"
            )
        yield Rank(learner[0], tuple(env))
        return
    for node in sorted(learning_nodes):
        ranks = [place for place in learner if place.node == node]
        mine = [place for place in env if place.node == node]
        if not gpus:
            yield from (Rank(place, tuple(mine)) for place in ranks)
            continue
        if len(mine) % len(ranks) or not mine:
            raise ConfigError(
                f"{KEY}: {len(mine)} GPUs that simulate do not divide among the {len(ranks)} "
                f"that learn on node {node}"
            )
        each = len(mine) // len(ranks)
        for index, place in enumerate(ranks):
            yield Rank(place, tuple(mine[index * each : (index + 1) * each]))


def by_node(place: Place) -> tuple[int, int]:
    """Return what places are sorted by: the CPU of a node before its GPUs."""
    return place.node, -1 if place.gpu is None else place.gpu


def _written(places: Iterable[Place]) -> str:
    return "[" + ",".join(map(str, places)) + "]"
