"""What a placement makes of the devices' knobs, rank by rank, and the picture of who is where."""

from collections.abc import Callable
from typing import Any

import pytest

from isaac_hydra_ext.config.placed import picture
from isaac_hydra_ext.config.placement import learner_device
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError

ISAAC = {"env": {"kind": "isaaclab", "task": "Isaac-Ant-v0"}}
Gpus = Callable[[int], None]
SEAT = {
    "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "head", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Have PyTorch see so many GPUs; returns a function that says how many."""
    monkeypatch.setattr("isaac_hydra_ext.config.placement.available_cores", lambda: 6)
    return lambda count: monkeypatch.setattr("torch.cuda.device_count", lambda: count)


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Be rank N of four, two on each of two nodes."""

    def be(rank: int) -> None:
        seat = {"RANK": rank, "LOCAL_RANK": rank % 2, "GROUP_RANK": rank // 2}
        for name, value in {**SEAT, **seat}.items():
            monkeypatch.setenv(name, str(value))

    return be


def placed(placement: Any, num_nodes: int = 1, **sections: Any) -> RunConfig:
    cluster = {"placement": placement, "num_nodes": num_nodes}
    return load_run_config({**ISAAC, "cluster": cluster, **sections})


def drawn(config: RunConfig, auto_is_gpu: bool = True) -> list[str]:
    complete(config, 4096, [])
    assert config.rollout.envs_per_worker is not None
    return list(picture(config, auto_is_gpu, config.rollout.envs_per_worker))


@pytest.mark.parametrize(
    ("placement", "workers", "device", "learner"),
    [
        ({"learner": 0, "env": "1-3"}, 3, "cuda:1,cuda:2,cuda:3", "cuda:0"),
        ({"actor": "3", "env": "0", "rollout": 1}, 2, "cuda:0,cuda:1", "cuda:3"),
        ({"actor,env": 2}, 0, "cuda:2", "cuda:2"),
        ({"learner": 1, "env": "cpu"}, 5, "cpu", "cuda:1"),
        ({"learner": "cpu", "env": "1"}, 1, "cuda:1", "cpu"),
    ],
)
def test_a_placement_says_what_three_knobs_would(
    gpus: Gpus, placement: Any, workers: int, device: str, learner: str
) -> None:
    gpus(4)
    config = placed(placement)
    assert (config.num_workers, config.rollout.device) == (workers, device)
    assert learner_device(config) == learner
    again = load_run_config(config.to_dict())  # a run's own params/agent.yaml
    assert (again.num_workers, again.rollout.device) == (workers, device)


def test_a_placement_names_the_evaluators_gpu_and_the_number_of_cpu_workers(gpus: Gpus) -> None:
    gpus(4)
    placement = {"learner": 0, "env": "cpu", "evaluator": 3}
    config = placed(placement, rollout={"num_workers": 2}, evaluate={"every": 5})
    assert (config.evaluate.device, config.num_workers) == ("cuda:3", 2)
    assert drawn(config) == [
        "cpu     2 workers: 4,096 envs",
        "cuda:0  learner",
        "cuda:3  evaluations",
    ]


def test_several_learners_each_have_their_part_of_the_gpus_that_simulate(gpus: Gpus) -> None:
    gpus(8)
    config = placed({"learner": "0-1", "env": "2-7"})
    assert config.experiment.devices == ["cuda:0", "cuda:1"]
    assert (config.seat.size, config.num_workers) == (2, 3)
    assert config.rollout.device == "cuda:2,cuda:3,cuda:4"
    lines = drawn(config)
    assert lines[:3] == ["cuda:0  learner 0", "cuda:1  learner 1",
                         "cuda:2  1 worker: 1,365 envs of learner 0"]  # fmt: skip
    assert lines[-1] == "cuda:7  1 worker: 1,365 envs of learner 1"


def test_where_each_gpu_does_both_each_has_all_the_envs_that_are_asked_for(gpus: Gpus) -> None:
    gpus(2)
    config = placed({"env": 0, "rollout": 1, "actor": "all"})
    assert (config.num_workers, config.rollout.device, config.seat.size) == (0, "cuda:0", 2)
    assert drawn(config) == [
        "cluster.placement.rollout: is a part of env here, as a policy acts where its env is",
        "cuda:0  learner 0; simulates its 4,096 envs",
        "cuda:1  learner 1; simulates its 4,096 envs",
    ]


def test_knobs_of_devices_have_a_picture_too_and_one_place_has_none(gpus: Gpus) -> None:
    gpus(4)
    devices = {"experiment": {"devices": ["cuda:0", "cuda:1"]}}
    rollout = {"device": ["cuda:2", "cuda:3"], "num_workers": 1}
    assert drawn(load_run_config({**ISAAC, **devices, "rollout": rollout})) == [
        "cuda:0  learner 0",
        "cuda:1  learner 1",
        "cuda:2  1 worker: 4,096 envs of learner 0",
        "cuda:3  1 worker: 4,096 envs of learner 1",
    ]
    gpus(0)
    assert drawn(load_run_config(ISAAC), auto_is_gpu=False) == []


def test_each_node_of_torchrun_takes_its_own_part(
    gpus: Gpus, torchrun: Callable[[int], None]
) -> None:
    gpus(4)
    placement = {"learner": "all:2-3", "env": "all:0-1"}
    for rank, learner, device in ((0, "cuda:2", "cuda:0"), (3, "cuda:3", "cuda:1")):
        torchrun(rank)
        config = placed(placement, num_nodes=2)
        assert (learner_device(config), config.rollout.device) == (learner, device)
        assert (config.seat.rank, config.seat.size, config.num_workers) == (rank, 4, 1)
    torchrun(0)
    assert drawn(placed(placement, num_nodes=2))[2:5] == [
        "node 0 cuda:2  learner 0",
        "node 0 cuda:3  learner 1",
        "node 1 cuda:0  1 worker: 4,096 envs of learner 2",
    ]
    with pytest.raises(ConfigError, match="names 1 learners on node 0, 2 in all, and torchrun has"):
        placed({"learner": "all:2", "env": "all:0"}, num_nodes=2)


def test_learners_of_other_nodes_are_started_there(gpus: Gpus) -> None:
    gpus(4)
    with pytest.raises(ConfigError, match="torchrun --nnodes 2 --nproc_per_node 2 --rdzv_endpoint"):
        placed({"learner": "all:2-3", "env": "all:0-1"}, num_nodes=2)


def test_workers_of_other_nodes_are_rays(gpus: Gpus) -> None:
    gpus(2)
    config = placed({"learner": 0, "env": "1:all"}, num_nodes=2)
    assert (config.rollout.launcher, config.num_workers, config.rollout.device) == (
        "ray",
        2,
        "cuda",
    )
    assert config.ray.worker_resources == {"num_cpus": 1, "num_gpus": 1}
    assert drawn(config) == [
        "cluster.placement.env: on other nodes workers are Ray's, which chooses the nodes",
        "cuda:0         learner",
        "Ray's cluster  2 workers: 4,096 envs",
    ]
    with pytest.raises(ConfigError, match="rollout.launcher=ray needs the number of its workers"):
        placed({"learner": 0, "env": "1:cpu"}, num_nodes=2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"experiment": {"device": "cuda:1"}}, "experiment.device=cuda:1: cluster.placement makes"),
        ({"experiment": {"devices": ["cuda:1"]}}, "experiment.devices=cuda:1: cluster.placement "),
        ({"rollout": {"device": ["cuda:2"]}}, "rollout.device=cuda:2: cluster.placement makes it"),
        ({"rollout": {"num_workers": 4}}, "rollout.num_workers=4: cluster.placement makes it 3"),
    ],
)
def test_what_a_placement_says_may_not_be_said_otherwise(
    gpus: Gpus, other: dict[str, Any], message: str
) -> None:
    gpus(4)
    with pytest.raises(ConfigError, match=message):
        placed({"learner": 0, "env": "1-3"}, **other)
