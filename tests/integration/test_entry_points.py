"""Envs and networks of packages that this one knows nothing of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from registration import register_package
from unit.builders import env_spec, run_config

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.config.placement import available_cores
from isaac_hydra_ext.config.schema import EnvConfig, RunConfig
from isaac_hydra_ext.envs.facts import EnvFacts
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.envs.registry import facts_of, needs_simulator
from isaac_hydra_ext.errors import ConfigError, EnvError, IsaacHydraExtError
from isaac_hydra_ext.evaluation.evaluator import evaluator_config
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.processes import check_processes
from isaac_hydra_ext.system import entry_points

Train = Callable[..., Checkpoint]
ADAPTER = """
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.gym import GymVecEnv
from isaac_hydra_ext.envs.contract import TaskDescription


def describe(env_config, device):
    return TaskDescription(6, {"ppo": {"gamma": 0.5}}, {"seen": dict(env_config.kwargs)})


def make(env_config, *, num_envs, device, seed, worker, run_dir):
    assert (device, worker, run_dir is not None) == ("cpu", 0, True) or run_dir is None
    return GymVecEnv(EnvConfig(id="Pendulum-v1", kwargs=dict(env_config.kwargs)), num_envs)
"""
NETWORKS = """
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, config, role, num_inputs, num_outputs):
        super().__init__()
        self.first = nn.Linear(num_inputs, config.hidden_dims[0])
        self.second = nn.Linear(config.hidden_dims[0], config.hidden_dims[0])
        self.last = nn.Linear(config.hidden_dims[0], num_outputs)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        return self.last(x + torch.tanh(self.second(x)))


def wide(config, role, num_inputs, num_outputs):
    return nn.Linear(num_inputs, num_outputs + 1)


def double(config, role, num_inputs, num_outputs):
    return nn.Linear(num_inputs, num_outputs).double()


def remembers(config, role, num_inputs, num_outputs):
    return nn.Sequential(nn.BatchNorm1d(num_inputs), nn.Linear(num_inputs, num_outputs))


def double_weights(config, role, num_inputs, num_outputs):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(num_inputs, num_outputs, dtype=torch.float64))

        def forward(self, x):
            return (x.double() @ self.w).float()

    return Mixed()


def random(config, role, num_inputs, num_outputs):
    return nn.Sequential(nn.Linear(num_inputs, num_outputs), nn.Dropout(0.5))


def nothing(config, role, num_inputs, num_outputs):
    return None


def too_few(config):
    return None
"""
FACTS = """
from isaac_hydra_ext.envs.facts import EnvFacts

FACTS = EnvFacts(auto_is_gpu=True, has_own_threads=True, process_bytes=2**50)
NO_FACTS = {"auto_is_gpu": True}
"""
ENTRY_POINTS = """
[isaac_hydra_ext.envs]
far_sim = far_package.adapter
half_sim = far_package.no_such_module
gone_sim = far_package.adapter
odd_sim = far_package.networks
lost_sim = far_package.no_such_module

[isaac_hydra_ext.env_facts]
half_sim = far_package.facts:FACTS
gone_sim = far_package.facts:NO_FACTS

[isaac_hydra_ext.networks]
residual = far_package.networks:Residual
gone = far_package.no_such_module:build
"""
BROKEN = ("wide", "double", "remembers", "double_weights", "random", "nothing", "too_few")


@pytest.fixture(autouse=True)
def far_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package as pip would: modules, and a .dist-info that names the entry points."""
    root = tmp_path / "site"
    (root / "far_package").mkdir(parents=True)
    (root / "far_package" / "__init__.py").touch()
    (root / "far_package" / "adapter.py").write_text(ADAPTER)
    (root / "far_package" / "networks.py").write_text(NETWORKS)
    (root / "far_package" / "facts.py").write_text(FACTS)
    more = "".join(f"{name} = far_package.networks:{name}\n" for name in BROKEN)
    register_package(root, "far_package", ENTRY_POINTS + more)
    monkeypatch.syspath_prepend(str(root))


def test_an_env_of_another_package_trains_and_is_evaluated(train_run: Train) -> None:
    checkpoint = train_run(
        "env=gym_any", "env.id=null", "env.kind=far_sim", "+env.kwargs.g=5",
        "rollout.num_workers=1", "rollout.envs_per_worker=null", "experiment.max_iterations=2",
    )  # fmt: skip
    config = checkpoint.meta["config"]
    assert config["ppo"]["gamma"] == 0.5, "what the adapter recommends"
    assert checkpoint.meta["spec"]["num_envs"] == 6
    env_yaml = checkpoint.path.parent.parent / "params" / "env.yaml"
    assert env_yaml.read_text() == "seen:\n  g: 5\n"
    assert evaluate(checkpoint, 2, 0)["mean_length"] == 200.0


def test_what_an_env_says_of_itself_is_read_without_its_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)

    def loaded(kind: str) -> RunConfig:
        return load_run_config({"env": {"kind": kind}})

    assert loaded("half_sim").num_workers == 2, "one a GPU that the learner leaves"
    assert facts_of(EnvConfig(kind="half_sim")).name == "env.kind=half_sim"
    assert evaluator_config(loaded("half_sim")).rollout.device == "auto"
    with pytest.raises(ConfigError, match=r"the processes alone take 2,097,152.0 GiB, available"):
        check_processes(loaded("half_sim"))
    silent = loaded("far_sim")
    assert silent.num_workers == max(1, available_cores() - 1)
    assert facts_of(silent.env) == EnvFacts(name="env.kind=far_sim")
    assert evaluator_config(silent).rollout.device == "cpu"
    assert needs_simulator(silent.env)


def test_a_network_of_another_package_trains_and_is_evaluated(train_run: Train) -> None:
    checkpoint = train_run(
        "policy.network=residual", "policy.hidden_dims=[7]", "policy.normalize_values=false",
        "rollout.num_workers=1", "experiment.max_iterations=2",
    )  # fmt: skip
    assert checkpoint.tensors["policy.actor.second.weight"].shape == (7, 7)
    assert evaluate(checkpoint, 1, 0)["episodes"] == 1


def test_a_registered_network_is_part_of_the_one_vector() -> None:
    config = run_config(policy={"network": "residual", "hidden_dims": [7]})
    policy = ActorCritic(config.policy, env_spec(), seed=1)
    before = policy.action_params({"policy": torch.ones(1, 3)}).detach().clone()
    policy.flat.mul_(2.0)
    assert not torch.equal(policy.action_params({"policy": torch.ones(1, 3)}), before)
    again = ActorCritic(config.policy, env_spec(), seed=1)
    assert torch.equal(again.flat * 2.0, policy.flat), "the seed decides the weights"


def refusal(kind: type[IsaacHydraExtError], act: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("wide", r"the actor gives (3, 2) for 3 rows, not (3, 1)"),
        ("double", "the actor cannot be built: RuntimeError"),
        ("remembers", "the actor has buffers (batch norm?)"),
        ("double_weights", "the actor: the parameter w is not float32"),
        ("random", "the actor gives another result each time (dropout?)"),
        ("nothing", "the actor is a NoneType, not an nn.Module"),
        ("too_few", "the actor cannot be built: TypeError"),
    ],
)
def test_a_network_that_breaks_the_contract_is_one_line(network: str, says: str) -> None:
    config = run_config(policy={"network": network})
    said = refusal(ConfigError, lambda: ActorCritic(config.policy, env_spec(), seed=1))
    assert said.startswith(f"policy.network={network}: ")
    assert says in said


def test_popart_needs_a_last_layer() -> None:
    config = run_config(policy={"network": "residual", "normalize_values": True})
    said = refusal(ConfigError, lambda: ActorCritic(config.policy, env_spec(), seed=1))
    assert "policy.normalize_values=true: needs a critic that is" in said


def test_names_that_nobody_registers_or_that_cannot_be_imported(train_run: Train) -> None:
    def config(**sections: Any) -> str:
        return refusal(ConfigError, lambda: run_config(**sections))

    assert "did you mean 'far_sim'?" in config(env={"kind": "far_sin"})
    assert "must be one of mlp, " in config(policy={"network": "lstm"})
    said = config(policy={"network": "gone"})
    assert "far_package.no_such_module:build cannot be imported (ModuleNotFoundError" in said
    with pytest.raises(EnvError, match="worker 0, describe, .*odd_sim: .*has no function 'desc"):
        train_run("env=gym_any", "env.id=x", "env.kind=odd_sim", "rollout.num_workers=1")
    with pytest.raises(ConfigError, match="env.kind=lost_sim: .* cannot be imported"):
        train_run("env=gym_any", "env.id=x", "env.kind=lost_sim", "rollout.num_workers=1")
    with pytest.raises(ConfigError, match="env.kind=gone_sim: an EnvFacts is expected"):
        train_run("env=gym_any", "env.id=x", "env.kind=gone_sim", "rollout.num_workers=1")


def test_one_name_of_two_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "[isaac_hydra_ext.networks]\nresidual = second:build\n"
    register_package(tmp_path / "second", "second", entry)
    monkeypatch.syspath_prepend(str(tmp_path / "second"))
    said = refusal(ConfigError, lambda: entry_points.load("k", "residual", entry_points.NETWORKS))
    assert "k=residual: registered by" in said
    assert "second:build" in said
