"""Which rank a process is, which devices are its own, and what is refused before it starts."""

import re
from dataclasses import asdict
from typing import Any

import pytest

from isaac_hydra_ext.config.placement import available_cores, learner_device
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.seat import NUMBERS, OURS, launched_seat
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.learner.ppo.scaled import scaled

from ..builders import run_config

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "node0", "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "2",
            "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
ISAAC = {"kind": "isaaclab", "task": "Isaac-Ant-v0"}


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, OURS):
        monkeypatch.delenv(name, raising=False)


def load(env: dict[str, Any] | None = None, **sections: dict[str, Any]) -> RunConfig:
    return load_run_config({"env": env or {"id": "Pendulum-v1"}, **sections})


def refused(env: dict[str, Any] | None = None, **sections: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        load(env, **sections)
    assert "\n" not in str(error.value)
    return str(error.value)


def started(monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    for name, value in {**TORCHRUN, **others}.items():
        monkeypatch.setenv(name, value)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)


def test_torchruns_variables_are_a_seat() -> None:
    seat = launched_seat(TORCHRUN)
    assert seat is not None and asdict(seat) == {
        "rank": 3, "size": 4, "local_rank": 1, "local_size": 2, "host": "node0", "port": 29500,
        "agent": True, "attempt": 2, "named": (),
    }  # fmt: skip


def test_without_them_or_with_one_process_there_is_none() -> None:
    assert launched_seat({}) is None
    assert launched_seat({"RANK": "0", "WORLD_SIZE": "2"}) is None  # a cluster's, of its machines
    alone = {name: "1" if "SIZE" in name else "0" for name in NUMBERS}
    assert launched_seat(alone) is None


@pytest.mark.parametrize(
    ("name", "value"), [("WORLD_SIZE", "two"), ("RANK", "4"), ("LOCAL_WORLD_SIZE", "5")]
)
def test_variables_that_make_no_sense_are_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}={value}:|RANK=\d: with WORLD_SIZE"):
        launched_seat({**TORCHRUN, name: value})


def test_the_first_rank_starts_the_others_which_get_a_seat() -> None:
    config = load(experiment={"devices": ["cpu", "cpu", "cpu"]})
    assert (config.seat.rank, config.seat.size, config.seat.host) == (0, 3, "")
    seat = launched_seat(config.seat.variables(2, 1234))
    assert seat is not None
    assert (seat.rank, seat.local_rank, seat.size, seat.port) == (2, 2, 3, 1234)
    assert config.num_workers == max(1, available_cores() // 3 - 1)


def test_one_device_is_that_of_one_learner() -> None:
    config = load(experiment={"devices": ["cpu"]})
    assert config.seat.size == 1 and config.experiment.device == "cpu"


def test_under_torchrun_a_rank_simulates_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    started(monkeypatch)
    config = load(ISAAC)
    assert learner_device(config) == config.rollout.device == "cuda:1"
    assert config.num_workers == 0
    assert config.to_dict()["rollout"]["device"] == "auto"  # the same on every rank


def test_gpus_that_simulate_are_divided_among_the_ranks_of_a_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus(monkeypatch, 6)
    simulating = {"device": ["cuda:2", "cuda:3", "cuda:4", "cuda:5"]}
    config = load(ISAAC, experiment={"devices": ["cuda:0", "cuda:1"]}, rollout=simulating)
    assert learner_device(config) == "cuda:0" and config.num_workers == 2
    assert config.rollout.device == "cuda:2,cuda:3"
    started(monkeypatch)
    assert load(ISAAC, rollout=simulating).rollout.device == "cuda:4,cuda:5"


@pytest.mark.parametrize(
    ("env", "experiment", "rollout", "says"),
    [
        (None, {"devices": ["cuda:0", "cuda:7"]}, {}, "experiment.devices=cuda:7: PyTorch sees 2"),
        (None, {"devices": ["cuda:1", "cuda:1"]}, {}, "names cuda:1 twice"),
        (None, {"devices": ["cpu", "cuda:1"]}, {}, "all learners are on GPUs, or all on the CPU"),
        (None, {"devices": ["cuda", "cuda:1"]}, {}, "cuda is none of cpu, cuda:0"),
        (None, {"devices": ["cpu", "cpu"], "device": "cuda:0"}, {}, "says otherwise"),
        (ISAAC, {"devices": ["cuda:0", "cuda:1"]}, {"device": "cuda:0"},
         "rollout.device=cuda:0: rollout.num_workers is per rank"),
        (ISAAC, {"devices": ["cpu", "cpu"]}, {"device": "cuda:0,cuda:1", "num_workers": 2},
         "rollout.num_workers=2: rollout.device=cuda:0 names 1 GPU"),
    ],
)  # fmt: skip
def test_devices_that_do_not_go_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, env: Any, experiment: Any, rollout: Any, says: str
) -> None:
    gpus(monkeypatch, 2)
    assert says in refused(env, experiment=experiment, rollout=rollout)


def test_torchrun_and_what_contradicts_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch)
    assert "torchrun has started 4 processes already" in refused(
        experiment={"devices": ["cpu", "cpu"]}
    )
    gpus(monkeypatch, 1)
    assert "torchrun: 2 ranks on a node with 1 GPUs" in refused()
    assert re.search("cuda:0: one GPU for 4 learners", refused(experiment={"device": "cuda:0"}))


def test_what_grows_with_the_ranks_is_a_knob() -> None:
    plain = run_config(8, ppo={"batch_size": 24, "lr": 1e-4, "update_epochs": 2})
    assert scaled(plain, 4) is plain
    grows = ["lr", "num_mini_batches", "update_epochs"]
    config = run_config(
        8, ppo={"batch_size": 24, "lr": 1e-4, "update_epochs": 2, "scale_with_ranks": grows}
    )
    assert scaled(config, 1) is config
    ppo = scaled(config, 2).ppo
    # 64 samples in 3 minibatches become 6, of 11 at most.
    assert (ppo.lr, ppo.batch_size, ppo.update_epochs) == (2e-4, 11, 4)
    assert config.ppo.batch_size == 24
