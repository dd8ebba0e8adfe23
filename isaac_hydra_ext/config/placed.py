"""A run's devices and workers as `cluster.placement` says them, and the picture of who is where.

Runs in the learner's process, before any other exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isaac_hydra_ext.config.checks import check_ray
from isaac_hydra_ext.config.cluster import KEY, Place, Placement, Rank, by_node, read_placement
from isaac_hydra_ext.config.nested import value_at
from isaac_hydra_ext.config.placement import learner_device, worker_gpu
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.seat import OURS, launched_seat
from isaac_hydra_ext.errors import ConfigError

RAY = Place(2**31, None)  # Ray says which node it is


def follow_placement(
    config: RunConfig, user: Mapping[str, Any], environ: Mapping[str, str]
) -> None:
    """Set the devices and W that `cluster.placement` says, if it says any.

    Args:
        config: Changed in place, before this process takes its rank's part of it.
        user: What the user has set, nested: it may not say otherwise.
        environ: The environment variables: torchrun's name the node.

    Raises:
        ConfigError: A placement that makes no sense, or something else that is set besides.
    """
    if not config.cluster.placement:
        return
    placement = _read(config)
    ranks = _own_ranks(placement, environ)
    for key, value in _said(ranks, placement).items():
        asked, made = _written(value_at(user, key, "auto")), _written(value)
        if asked not in ("auto", "", made):
            raise ConfigError(f"{key}={asked}: {KEY} makes it {made}; say one of the two")
        section, name = key.split(".")
        setattr(getattr(config, section), name, value)
    check_ray(config)


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(config: RunConfig) -> Placement:
    import torch

    gpus = torch.cuda.device_count()  # through NVML: makes no CUDA context
    return read_placement(config.cluster.placement, config.cluster.num_nodes, gpus)


def _own_ranks(placement: Placement, environ: Mapping[str, str]) -> list[Rank]:
    """Return the ranks of this node."""
    seat = launched_seat(environ)
    node = int(environ.get("GROUP_RANK", "0")) if seat else 0
    mine = [rank for rank in placement.ranks if rank.learner.node == node]
    elsewhere = {rank.learner.node for rank in placement.ranks} - {node}
    if seat is None and (elsewhere or not mine):
        nodes = 1 + max(rank.learner.node for rank in placement.ranks)
        raise ConfigError(
            f"{KEY}: learners on other nodes are started there: on each of the nodes, torchrun "
            f"--nnodes {nodes} --nproc_per_node {max(1, len(mine))} --rdzv_endpoint HOST:PORT -m "
            "isaac_hydra_ext.appo_runner with the same words"
        )
    started = (seat.local_size, seat.size) if seat and OURS not in environ else None
    if seat and started not in (None, (len(mine), len(placement.ranks))):
        raise ConfigError(
            f"{KEY}: names {len(mine)} learners on node {node}, {len(placement.ranks)} in all, and "
            f"torchrun has started {seat.local_size} here, {seat.size} in all"
        )
    return mine


def _said(ranks: list[Rank], placement: Placement) -> dict[str, Any]:
    """Return what the placement says of this node, by knob."""
    learners = [rank.learner for rank in ranks]
    simulating = [place for rank in ranks for place in rank.simulations] or learners
    on_gpus, each = simulating[0].gpu is not None, len(ranks[0].simulations)
    said: dict[str, Any] = {"experiment.devices": [place.device for place in learners]}
    if len(placement.ranks) == 1:
        said["experiment.device"] = learners[0].device
    if any(place.node != learners[0].node for place in simulating):
        said |= {"rollout.launcher": "ray", "rollout.device": "cuda" if on_gpus else "cpu"}
        if on_gpus:
            said["ray.worker_resources"] = {"num_cpus": 1, "num_gpus": 1}
    else:
        said["rollout.device"] = ",".join(dict.fromkeys(place.device for place in simulating))
    if on_gpus:
        said["rollout.num_workers"] = each
    if placement.evaluator is not None:
        said["evaluate.device"] = placement.evaluator.device
    return said


def picture(config: RunConfig, auto_is_gpu: bool, num_envs: int) -> Iterator[str]:
    """Yield who is where, a line for each GPU and each node's CPU; nothing if there is one line.

    Args:
        config: The complete one, of the first rank.
        auto_is_gpu: `rollout.device=auto` of this kind of env is a GPU.
        num_envs: Of one collector.
    """
    if config.cluster.placement:
        placement = _read(config)
        yield from placement.notes
        ranks: Sequence[Rank] = placement.ranks
        if config.rollout.launcher == "ray":
            yield f"{KEY}.env: on other nodes workers are Ray's, which chooses the nodes"
            ranks = [Rank(placement.ranks[0].learner, (RAY,))]
    else:
        ranks = _ranks_of(config, auto_is_gpu)
    rows: dict[Place, list[str]] = {}
    for number, rank in enumerate(ranks):
        name = f"learner {number}" if len(ranks) > 1 else "learner"
        rows.setdefault(rank.learner, []).append(name)
        if not rank.simulations:
            rows[rank.learner].append(f"simulates its {num_envs:,} envs")
        for place in rank.simulations:
            count = 1 if place.gpu is not None else config.num_workers
            what = f"{count} worker{'s' * (count > 1)}: {count * num_envs:,} envs"
            of = f" of {name}" if len(ranks) > 1 else ""
            rows.setdefault(place, []).append(what + of)
    if config.evaluate.every and config.evaluate.device != "auto":
        rows.setdefault(_place(config.evaluate.device), []).append("evaluations")
    if len(rows) > 1:
        several = len({place.node for place in rows if place != RAY}) > 1
        names = {place: _name(place, several) for place in rows}
        width = max(map(len, names.values()))
        for place in sorted(rows, key=by_node):
            yield f"{names[place]:{width}}  {'; '.join(rows[place])}"


def _ranks_of(config: RunConfig, auto_is_gpu: bool) -> list[Rank]:
    """Return the ranks as the knobs of devices say them; each node has as many."""
    seat, workers, learner = config.seat, config.num_workers, _place(learner_device(config))
    if config.rollout.launcher == "ray":
        return [Rank(learner, (RAY,))]
    if seat.size == 1:
        gpus = [worker_gpu(config, worker, auto_is_gpu) for worker in range(workers)]
        return [Rank(learner, tuple(dict.fromkeys(_place(gpu or "cpu") for gpu in gpus)))]
    learners = [_place(device) for device in config.experiment.devices] or [
        Place(0, None if learner.gpu is None else index) for index in range(seat.local_size)
    ]
    whole = {(section, name): value for section, name, value in seat.named}
    device = whole.get(("rollout", "device"), config.rollout.device)
    named = [_place(name) for name in device.split(",")] if device.startswith("cuda:") else []
    ranks = []
    for node in range(seat.size // seat.local_size):
        for index, own in enumerate(learners):
            mine = named[index * workers : (index + 1) * workers] or [Place(0, None)]
            simulations = tuple(Place(node, place.gpu) for place in mine) if workers else ()
            ranks.append(Rank(Place(node, own.gpu), simulations))
    return ranks


def _place(device: str) -> Place:
    kind, _, index = device.partition(":")
    return Place(0, int(index or 0) if kind == "cuda" else None)


def _name(place: Place, several_nodes: bool) -> str:
    if place == RAY:
        return "Ray's cluster"
    return f"node {place.node} {place.device}" if several_nodes else place.device
