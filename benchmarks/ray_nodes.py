"""Nodes of Ray's as separate processes on this machine, for the benchmarks of remote workers.

They are started by a process of their own: Ray starts nodes in a main thread only.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

STORE_BYTES = 200 * 2**20
ANSWER_S = 120.0


class RayNodes:
    """A head without room for workers, and nodes that have some."""

    def __init__(self, nodes: int, workers_per_node: int) -> None:
        """Start them."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, nodes, workers_per_node))
        self._process.start()
        theirs.close()
        self.typed = ["rollout.launcher=ray", f"ray.address={self._answer()}"]

    def _answer(self) -> str:
        if not self._pipe.poll(ANSWER_S):
            raise RuntimeError(f"no answer of the nodes' process within {ANSWER_S:g} s")
        return self._pipe.recv_bytes().decode()

    def replace_oldest(self) -> None:
        """Kill the node that is there for longest, with all that runs on it; then add another."""
        self._pipe.send_bytes(b"replace")
        self._answer()

    def shutdown(self) -> None:
        """End them all."""
        self._pipe.send_bytes(b"end")
        self._process.join(ANSWER_S)


def _serve(pipe: Connection, nodes: int, workers_per_node: int) -> None:
    from ray.cluster_utils import Cluster

    node = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
    running = [cluster.add_node(**node, num_cpus=workers_per_node) for _ in range(nodes)]
    pipe.send_bytes((cluster.address or "").encode())
    while pipe.recv_bytes() == b"replace":
        cluster.remove_node(running.pop(0), allow_graceful=False)
        pipe.send_bytes(b"killed")
        running.append(cluster.add_node(**node, num_cpus=workers_per_node))
    cluster.shutdown()


@contextmanager
def ray_nodes(nodes: int, workers_per_node: int) -> Iterator[RayNodes]:
    """Give nodes that end with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = RayNodes(nodes, workers_per_node)
    try:
        yield cluster
    finally:
        cluster.shutdown()
