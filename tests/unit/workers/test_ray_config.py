"""What may be said of Ray, before anything of Ray's is imported."""

import importlib.util
from typing import Any

import pytest

from isaac_hydra_ext.errors import ConfigError, MissingDependencyError
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.sources import make_source

from ..builders import run_config

ON_RAY = {"launcher": "ray", "num_workers": 2}


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"rollout": {"launcher": "ray", "num_workers": 0}}, "rollout.num_workers=0: rollout.la"),
        ({"rollout": {"launcher": "ray", "num_workers": "auto"}}, "rollout.num_workers=auto: roll"),
        ({"rollout": {**ON_RAY, "device": "cuda:1"}}, "rollout.device=cuda:1: Ray chooses each"),
        ({"rollout": {**ON_RAY, "device": "cuda"}}, "rollout.device=cuda: no GPU of Ray's"),
        ({"ray": {"address": "here"}}, "ray.address=here: must be auto, local or HOST:PORT"),
        ({"ray": {"address": "host:99999"}}, "ray.address=host:99999: must be auto"),
        ({"ray": {"worker_resources": {"num_cpus": -1}}}, "ray.worker_resources.num_cpus=-1: must"),
        ({"ray": {"worker_resources": {"num_cpus": "a"}}}, "ray.worker_resources.num_cpus=a: not"),
    ],
)
def test_nonsense_is_refused_in_a_line(groups: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run_config(**groups)
    assert str(refused.value).startswith(says) and "\n" not in str(refused.value)


def test_a_missing_ray_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'isaac-hydra-ext\[ray\]'"):
        make_source(run_config(rollout=ON_RAY), StopSignals())


def test_a_gpu_of_another_machine_need_not_be_here() -> None:
    config = run_config(
        env={"kind": "isaaclab", "id": None, "task": "Isaac-Cartpole-v0"},
        rollout={**ON_RAY, "device": "cuda"},
        ray={"worker_resources": {"num_cpus": 1, "num_gpus": 0.25}},
    )
    assert (config.rollout.device, config.num_workers) == ("cuda", 2)


def test_a_cluster_that_nobody_answers_for_is_refused_in_a_line() -> None:
    pytest.importorskip("ray", reason="pip install -e '.[ray]'")
    from isaac_hydra_ext.workers.ray_cluster import join

    with pytest.raises(ConfigError, match=r"^ray.address=127.0.0.1:1: nobody answers there \("):
        join("127.0.0.1:1")
