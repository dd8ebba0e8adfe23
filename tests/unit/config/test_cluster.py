"""`cluster.placement`, read: RLinf's grammar, and what makes no sense in it."""

from typing import Any

import pytest

from isaac_hydra_ext.config.cluster import Rank, read_placement
from isaac_hydra_ext.errors import ConfigError


def said(rank: Rank) -> str:
    return f"{rank.learner} <- {','.join(map(str, rank.simulations)) or 'itself'}"


def ranks(placement: Any, num_nodes: int = 1, gpus: int = 8) -> list[str]:
    return [said(rank) for rank in read_placement(placement, num_nodes, gpus).ranks]


@pytest.mark.parametrize(
    "placement",
    [
        {"learner": 0, "env": "1-3"},
        {"actor": "0", "env": [1, "2-3"]},
        {"actor": "0:0", "env": "0:1-3"},
        {"actor": 0, "env": "1", "rollout": "2-3"},
        {"actor": 0, "env": "1-2", "rollout": "2-3", "reward": 1},
        {"actor,critic": 0, "env, rollout": "1-3"},
        "{learner: 0, env: 1-3}",
        "learner: 0\nenv: 1-3",
    ],
)
def test_one_learner_and_a_worker_for_each_other_gpu(placement: Any) -> None:
    assert ranks(placement) == ["0:0 <- 0:1,0:2,0:3"]


@pytest.mark.parametrize(
    "placement",
    [
        {"actor": "all", "env": "all"},
        {"actor,env": "all"},
        {"actor,env,rollout": "0-1"},
        "actor,env: all",
        "{actor, env: all}",
        {"actor": "0-1", "env": 0, "rollout": 1},
    ],
)
def test_where_both_have_the_same_gpus_each_process_does_both(placement: Any) -> None:
    assert ranks(placement, gpus=2) == ["0:0 <- itself", "0:1 <- itself"]


def test_simulations_divide_among_the_learners_of_their_node() -> None:
    assert ranks({"learner": "0-1", "env": "2-7"}) == [
        "0:0 <- 0:2,0:3,0:4",
        "0:1 <- 0:5,0:6,0:7",
    ]
    assert ranks({"env": "0-3", "rollout": "4-7", "actor": "8-15"}, gpus=16)[:2] == [
        "0:8 <- 0:0",
        "0:9 <- 0:1",
    ]


def test_gpus_are_counted_through_the_nodes() -> None:
    counted = ranks({"actor": "0,4", "env": "1-3,5-7"}, num_nodes=2, gpus=4)
    named = ranks({"actor": "all:0", "env": "0-1:1-3"}, num_nodes=2, gpus=4)
    assert counted == named == ["0:0 <- 0:1,0:2,0:3", "1:0 <- 1:1,1:2,1:3"]


def test_cpus_simulate_for_every_learner_of_their_node_and_for_one_elsewhere() -> None:
    assert ranks({"learner": "0-1", "env": "cpu"}) == ["0:0 <- 0:cpu", "0:1 <- 0:cpu"]
    assert ranks({"learner": 0, "env": "0-2:cpu"}, num_nodes=3) == ["0:0 <- 0:cpu,1:cpu,2:cpu"]
    assert ranks({"learner": 0, "env": "1:all"}, num_nodes=2, gpus=2) == ["0:0 <- 1:0,1:1"]
    assert ranks({"learner": "cpu", "env": "cpu"}, gpus=0) == ["0:cpu <- 0:cpu"]


def test_an_evaluator_has_a_place_of_its_own() -> None:
    placement = read_placement({"learner": 0, "env": "1-2", "evaluator": 3}, 1, 4)
    assert placement.evaluator is not None and placement.evaluator.device == "cuda:3"
    assert read_placement({"learner": 0, "env": "1-2"}, 1, 4).evaluator is None


def test_what_does_not_exist_here_is_said_to_be_a_part_of_something() -> None:
    placement = read_placement({"env": "0-3", "rollout": "4-7", "actor": "0-7"}, 1, 8)
    assert [said(rank) for rank in placement.ranks] == [f"0:{gpu} <- itself" for gpu in range(8)]
    assert placement.notes == (
        "cluster.placement.rollout: is a part of env here, as a policy acts where its env is",
    )


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"learner": 0, "env": "1,1"}, "env=1,1: names GPU 0:1 twice"),
        ({"learner": 0, "env": "1-2,0:2"}, "names GPU 0:2 twice"),
        ({"learner": 0, "env": ["0:cpu", "cpu"]}, "names the CPU of node 0 twice"),
        ({"learner": 0, "env": "0-3"}, "GPU 0:0 learns and simulates"),
        ({"learner": "0-1", "env": "1-2"}, "GPU 0:1 learns and simulates"),
        ({"learner": 0, "env": "1-4"}, "env=1-4: 4 is not there: there are 4 GPUs in the clus"),
        ({"learner": 0, "env": "1:0"}, "1 is not there: there are 1 nodes (cluster.num_nodes)"),
        ({"learner": 0, "env": "0:4"}, "4 is not there: there are 4 GPUs on each node, from 0"),
        ({"learner": "0-1", "env": "2-3,cpu"}, "on GPUs or on CPUs, not on both"),
        ({"learner": "0-1", "env": "2"}, "1 GPUs that simulate do not divide among the 2"),
        ({"learner": 0, "env": "3-1"}, "env=3-1: names nothing: 1 comes before 3"),
        ({"learner": 0, "env": "cuda:1"}, "env=cuda:1: name GPUs: 0, 0-3"),
        ({"learner": 0, "env": True}, "env=True: name GPUs"),
        ({"learner": 0, "env": ""}, "name GPUs"),
        ({"learner": 0, "env": None}, "placement.env: name GPUs"),
        ({"learner": 0, "envs": 1}, "placement.envs: no such part; did you mean 'env'"),
        ({"learner": 0, "agent": 1}, "placement.agent: no such part; there are learner, env, eval"),
        ({"learner": 0}, "cluster.placement: says nothing of env"),
        ({"env": "1-3"}, "cluster.placement: says nothing of learner"),
        ({"learner": 0, "env": 1, "evaluator": "2-3"}, "evaluator=[0:2,0:3]: there is one"),
        ("0-3", "write {learner: 0, env: 1-3}"),
        ("{learner: 0, env: [", "cluster.placement="),
    ],
)
def test_nonsense_is_one_line(placement: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_placement(placement, 1, 4)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_gpus_that_are_not_there_and_nodes_where_nobody_learns() -> None:
    with pytest.raises(ConfigError, match="learner=all: names nothing: there are 0 GPUs"):
        read_placement({"learner": "all", "env": "all"}, 1, 0)
    with pytest.raises(ConfigError, match="nodes where nobody learns; only one learner"):
        read_placement({"learner": "0:0-1", "env": "1:all"}, 2, 2)
