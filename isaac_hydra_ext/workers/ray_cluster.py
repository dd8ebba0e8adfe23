"""Ray's cluster: joining it, and whether it has room. Runs in the relay, and in `appo tune`."""

import logging
import math
import os
import socket
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RaySystemError

from isaac_hydra_ext.errors import ConfigError, first_line, shown

ANSWER_S = 10.0  # for HOST:PORT to answer at all
OWN_NAMES = ("num_cpus", "num_gpus", "memory")  # Ray's words for these are options of their own
RAYS_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU"}


def join(address: str) -> str:
    """Connect this process to a cluster; from its main thread, with which a local cluster ends.

    Args:
        address: `ray.address`.

    Returns:
        A line for the user.

    Raises:
        ConfigError: Nobody answers there.
    """
    if ":" in address:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        except OSError as e:
            raise ConfigError(f"ray.address={address}: nobody answers there ({e})") from e
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody that it runs
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as e:
        raise ConfigError(
            f"ray.address={address}: no cluster here; start one (ray start --head), name one "
            "(ray.address=HOST:PORT), or use ray.address=local"
        ) from e
    except (RuntimeError, ValueError, RaySystemError) as e:
        raise ConfigError(f"ray.address={address}: {first_line(e)}") from e
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return f"Ray at {address}: {len(nodes)} node{'s' * (len(nodes) > 1)}"


def actor_options(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return `ray.worker_resources` as an actor's options."""
    resources = with_a_cpu(resources)
    options = {name: resources[name] for name in OWN_NAMES if name in resources}
    others = {name: x for name, x in resources.items() if name not in OWN_NAMES}
    return {**options, "resources": others}


def with_a_cpu(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each worker needs: one CPU where nothing else is said."""
    return {"num_cpus": 1, **resources}


def check_room(key: str, count: int, resources: Mapping[str, Any]) -> None:
    """Refuse more actors than the nodes have room for if nobody else used them.

    Args:
        key: Of the knob that `count` is.
        count: Of actors.
        resources: `ray.worker_resources`.

    Raises:
        ConfigError: Says how many would fit.
    """
    resources = with_a_cpu(resources)
    room = sum(_fit(node["Resources"], resources) for node in ray.nodes() if node["Alive"])
    if room < count:
        raise ConfigError(
            f"{key}={count}: the cluster has room for {room:g} with {in_words(resources)} each; "
            "lower it, or ray.worker_resources, or add nodes"
        )


def in_words(resources: Mapping[str, Any]) -> str:
    """Return resources as they are typed."""
    return shown("{" + ", ".join(f"{name}: {amount}" for name, amount in resources.items()) + "}")


def _fit(has: Mapping[str, float], resources: Mapping[str, Any]) -> float:
    """Return how many actors fit on a node."""
    each = [
        has.get(RAYS_NAMES.get(name, name), 0.0) / amount + 1e-9
        for name, amount in resources.items()
        if amount
    ]
    return math.floor(min(each)) if each else math.inf
