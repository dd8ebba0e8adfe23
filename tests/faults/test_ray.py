"""Workers on Ray: a cluster of separate Ray processes here, each node with a store of its own."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hydra import compose, initialize_config_module
from live_run import HANG_S, LiveRun, is_still, runs_a_worker

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.workers.channel import Kind, Message

ray = pytest.importorskip("ray", reason="pip install -e '.[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from isaac_hydra_ext.workers import ray_cluster, ray_worker  # noqa: E402

Live = Callable[..., LiveRun]
NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
LIGHT = ("ppo.update_epochs=1", "ppo.num_mini_batches=1", "rollout.pin_cores=false")
pytestmark = pytest.mark.timeout(600)


class Nodes:
    """A head without room for workers, and nodes with room for two each."""

    def __init__(self, count: int) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
        self.nodes = [self.add() for _ in range(count)]

    def add(self) -> Any:
        return self._cluster.add_node(**NODE)

    @property
    def typed(self) -> tuple[str, ...]:
        """What has a run's workers here."""
        return ("rollout.launcher=ray", f"ray.address={self.address}", *LIGHT)

    @property
    def address(self) -> str:
        return self._cluster.address

    def lose(self, host: psutil.Process) -> None:
        """Kill the raylet of the node that a host is on, and with it all that runs there."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self.nodes]
        node = self.nodes.pop(raylets.index(host.ppid()))
        self._cluster.remove_node(node, allow_graceful=False)

    def restart(self) -> None:
        """Kill all of it, and start it anew at the same address with one node."""
        port = int(self.address.rpartition(":")[2])
        self._cluster.shutdown()
        head = {**NODE, "num_cpus": 0, "gcs_server_port": port}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add()]

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    nodes = Nodes(2)
    yield nodes
    nodes.shutdown()


def hosts() -> list[psutil.Process]:
    """Ray's processes that host a worker of ours, oldest first."""
    found = [p for p in psutil.Process().children(recursive=True) if is_still(p, _is_host)]
    return sorted(found, key=lambda p: p.create_time())


def _is_host(process: psutil.Process) -> bool:
    return "ray::WorkerHost" in " ".join(process.cmdline())


def workers() -> list[psutil.Process]:
    return [p for host in hosts() for p in host.children() if is_still(p, runs_a_worker)]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=HANG_S)[1]


def counts_add_up(summary: dict[str, Any]) -> bool:
    produced, consumed = summary["samples_produced"], summary["samples_consumed"]
    assert consumed == summary["iterations"] * 2 * 4 * 16 == summary["env_steps"]
    return produced == consumed + summary["samples_abandoned"]


def test_remote_workers_learn_the_same_bits_as_local_ones_also_resumed(
    cluster: Nodes, tmp_path: Path
) -> None:
    def trained(*typed: str) -> dict[str, Any]:
        line = [
            f"experiment.output_dir={tmp_path}", "logging.console=quiet", "logging.report=false",
            "rollout.envs_per_worker=4", "rollout.steps_per_env=64", "rollout.num_workers=2",
            "rollout.deterministic=true", *typed,
        ]  # fmt: skip
        with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
            return train(compose("train_appo", overrides=line), line)

    tensors = []
    for typed in (LIGHT, cluster.typed):
        half = trained("experiment.max_iterations=3", *typed)
        resumed = f"resume={half['run_dir']}"  # the envs' states travel, too
        rest = trained("experiment.max_iterations=5", resumed, *typed)
        newest = max(Path(rest["run_dir"]).glob("checkpoints/*"))
        tensors.append(load_checkpoint(newest).tensors)
        assert rest["mean_episode_length"] == 200, "final observations have been copied too"
    local, remote = tensors
    assert local.keys() == remote.keys()
    assert all(torch.equal(x, remote[name]) for name, x in local.items())
    assert gone(hosts())


def test_actors_and_a_node_that_die_are_replaced_and_the_counts_are_exact(
    live: Live, cluster: Nodes
) -> None:
    run = live("experiment.max_iterations=100", *cluster.typed)
    run.wait_for_iteration(3)
    hosts()[0].send_signal(signal.SIGKILL)  # an actor
    wait_for(run, "replaced (1 of")
    killed = workers()[-1]  # the simulation, in its host
    killed.send_signal(signal.SIGKILL)
    wait_for(run, "was killed by SIGKILL on node")
    wait_for(run, "replaced (2 of")
    while len(workers()) < 2:
        time.sleep(0.1)
    before = len(run.text()[1].splitlines())
    cluster.lose(hosts()[-1])
    cluster.nodes.append(cluster.add())
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert (summary["status"], summary["iterations"]) == ("completed", 100)
    assert summary["worker_restarts"] in (3, 4), "as many as were on the node"
    assert len(run.text()[1].splitlines()) > before
    assert counts_add_up(summary)
    assert gone(hosts())


def wait_for(run: LiveRun, words: str) -> None:
    deadline = time.monotonic() + HANG_S
    while words not in "".join(run.text()):
        assert run.process.poll() is None and time.monotonic() < deadline, run.text()
        time.sleep(0.05)


@pytest.mark.release
def test_nothing_of_ours_outlives_a_killed_driver(live: Live, cluster: Nodes) -> None:
    run = live("experiment.max_iterations=100000", *cluster.typed)
    run.wait_for_iteration(2)
    ours = [*hosts(), *workers(), *run.ps.children(recursive=True)]
    assert len(hosts()) == len(workers()) == 2
    run.process.send_signal(signal.SIGKILL)
    assert run.process.wait(HANG_S) == -signal.SIGKILL
    assert gone(ours)


@pytest.fixture
def joined(cluster: Nodes) -> Iterator[None]:
    """Have this process be a driver."""
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("joined")
def test_a_lost_rollout_and_other_versions_are_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def heard() -> Message:
        assert ours.poll(HANG_S)
        return Message.receive(ours)

    ours, theirs = multiprocessing.Pipe()
    worker = ray_worker.RemoteWorker(theirs, 0, 3, {"num_cpus": 1})
    while not worker._node:
        time.sleep(0.05)

    def lost(answer: Any) -> None:
        raise ray.exceptions.ObjectLostError(answer.hex(), "", "")

    monkeypatch.setattr(worker, "_wait", lost)
    message = heard()
    assert (message.kind, message.generation) == (Kind.DIED, 3)
    assert message.body["how"].startswith("lost a rollout on its way from node ")
    worker.end()

    monkeypatch.setattr(ray_worker, "versions", lambda: {"isaac_hydra_ext": "9.9", "torch": "9.8"})
    worker = ray_worker.RemoteWorker(theirs, 1, 0, {"num_cpus": 1})
    message = heard()
    worker.end()
    assert (message.kind, message.body["class"]) == (Kind.ERROR, "ConfigError")
    for words in ("worker 1: node", "isaac_hydra_ext", "here 9.9; torch", "here 9.8; install"):
        assert words in message.body["message"]
    assert gone(hosts())


@pytest.mark.usefixtures("joined")
def test_more_workers_than_there_is_room_for_are_refused() -> None:
    for resources, room in (({"num_cpus": 1}, 4), ({"num_cpus": 1.5}, 2), ({"num_gpus": 1}, 0)):
        with pytest.raises(ConfigError) as refused:
            ray_cluster.check_room("rollout.num_workers", 5, resources)
        said = f"rollout.num_workers=5: the cluster has room for {room} with {{num_"
        assert str(refused.value).startswith(said)


@pytest.mark.release
def test_a_cluster_that_is_restarted_costs_its_workers_only(cluster: Nodes, tmp_path: Path) -> None:
    """The last of the module: its nodes are others afterwards, and have a file open here."""
    run = LiveRun(tmp_path, "experiment.max_iterations=100", *cluster.typed)
    try:
        run.wait_for_iteration(3)
        cluster.restart()
        assert run.finish() == 0, run.text()
    finally:
        run.kill()
        run.out.close()
        run.err.close()
    summary = run.summary()
    assert (summary["status"], summary["iterations"]) == ("completed", 100)
    assert counts_add_up(summary)
    assert summary["worker_restarts"] >= 2, "each worker's, and those of the relay if it was lost"
    assert gone(hosts())
