"""A trained policy as a function: one observation or many, NumPy or torch, with memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isaac_hydra_ext
from isaac_hydra_ext.checkpoints.file import save_checkpoint
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import CheckpointError, EnvError
from isaac_hydra_ext.evaluation.loaded_policy import LoadedPolicy, load_policy
from isaac_hydra_ext.models.distributions import Gaussian
from isaac_hydra_ext.models.policy import Acted, Policy, Samples, Sequences, State
from isaac_hydra_ext.models.registry import make_policy

from ..builders import continuous, discrete, env_spec, run_config
from ..checkpoint_samples import meta

BOUNDS = ((-9.0, 9.0), (-9.0, 9.0))
TWO_GROUPS = {"policy": ((3,), "float32"), "goal": ((2,), "float32")}


def saved(
    tmp_path: Path, spec: EnvSpec, rollout: dict[str, Any] | None = None, **policy: Any
) -> tuple[Path, Policy]:
    """The checkpoint of a run, and the policy that was saved."""
    config = run_config(policy=policy, rollout=rollout or {}, experiment={"name": "toy"})
    made = make_policy(config, spec)
    generator = torch.Generator().manual_seed(7)
    made.flat.copy_(torch.rand(made.flat.shape, generator=generator) * 0.3 + 0.1)
    directory = tmp_path / "toy" / "2026-01-01_00-00-00" / "checkpoints"
    directory.mkdir(parents=True)
    tensors = {f"policy.{name}": tensor for name, tensor in made.state_dict().items()}
    about = meta(9, (1.0,), config=json.loads(json.dumps(config.to_dict())), spec=spec.to_json())
    return save_checkpoint(directory, 9, tensors, about), made


def test_one_observation_and_many_arrays_and_tensors_are_the_policys_own_action(
    tmp_path: Path,
) -> None:
    spec = env_spec(2, {"policy": ((3,), "float32")}, continuous(*BOUNDS))
    path, made = saved(tmp_path, spec)
    policy = load_policy(path)
    assert (policy.iteration, policy.path, policy.spec) == (9, path, spec)
    obs_NO = np.random.default_rng(0).normal(size=(5, 3))  # float64, as some envs give
    with torch.no_grad():
        expected = made.act({"policy": torch.as_tensor(obs_NO).float()}, {}, None).env_action_BA
    found = policy(obs_NO)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.numpy())
    np.testing.assert_allclose(policy(obs_NO[1]), found[1], rtol=1e-6)
    assert policy(obs_NO[1]).shape == (2,)
    tensor = policy({"policy": torch.as_tensor(obs_NO)})
    assert isinstance(tensor, torch.Tensor) and torch.equal(tensor, expected)
    drawn = [load_policy(path, seed=s)(obs_NO, deterministic=False) for s in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[0], found)


def test_discrete_actions_are_counted_from_0(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, env_spec(2, {"policy": ((3,), "float32")}, discrete(4)))
    action = load_policy(path)(np.zeros(3, np.float32))
    assert action.shape == (1,) and action.dtype == np.int64 and 0 <= action.item() < 4


def test_what_the_policy_does_not_read_need_not_be_there_and_what_it_reads_must(
    tmp_path: Path,
) -> None:
    spec = env_spec(2, TWO_GROUPS, continuous(*BOUNDS))
    path, _ = saved(tmp_path, spec, obs_groups={"actor": ["goal"], "critic": ["policy", "goal"]})
    policy = load_policy(path)
    alone = policy(np.ones(2, np.float32))
    np.testing.assert_array_equal(policy({"goal": np.ones(2, np.float32)}), alone)
    with pytest.raises(EnvError, match=r"obs group 'goal' is missing; there are \['policy'\]"):
        policy({"policy": np.ones(3, np.float32)})
    with pytest.raises(EnvError, match=r"'goal': expected \[2\] or \['N', 2\], got \[3\]"):
        policy(np.ones(3, np.float32))


def test_groups_of_one_call_belong_to_the_same_envs(tmp_path: Path) -> None:
    groups = ["policy", "goal"]
    spec = env_spec(2, TWO_GROUPS, continuous(*BOUNDS))
    path, _ = saved(tmp_path, spec, obs_groups={"actor": groups, "critic": groups})
    policy = load_policy(path)
    with pytest.raises(EnvError, match="one array, but the policy reads policy, goal; give a dict"):
        policy(np.ones(3, np.float32))
    for goals in (np.ones(2, np.float32), np.ones((4, 2), np.float32)):
        with pytest.raises(EnvError, match="the groups are of different numbers of envs"):
            policy({"policy": np.ones((1, 3), np.float32), "goal": goals})
    policy({"policy": np.ones((4, 3), np.float32), "goal": np.ones((4, 2), np.float32)})


def test_words_look_where_eval_looks(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, env_spec(2, {"policy": ((3,), "float32")}, continuous(*BOUNDS)))
    for word in ("latest", "best"):
        assert load_policy(word, output_dir=tmp_path).path == path
        assert load_policy(word, output_dir=tmp_path, experiment="toy").path == path
    assert load_policy(path.parent.parent).path == path
    with pytest.raises(CheckpointError, match="^load_policy: latest: no checkpoint that loads"):
        load_policy(output_dir=tmp_path / "elsewhere")


class Steps(Policy):
    """Its action is how many steps it remembers of the episode."""

    def __init__(self, spec: EnvSpec) -> None:
        self.flat, self.num_params = torch.zeros(1), 1
        self.distribution = Gaussian(spec.action, squash=False, clip=None)
        self.fields, self.actor_groups, self.critic_groups = {}, ["policy"], ["policy"]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {}

    def initial_state(self, num_envs: int) -> State:
        return {"steps": torch.zeros(num_envs)}

    def act(self, obs: Samples, state: State, noise_BN: torch.Tensor | None) -> Acted:
        steps = state["steps"] + 1
        action = steps[:, None].expand(-1, 2)
        return Acted(action, action, action, state={"steps": steps})

    def action_params(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        raise NotImplementedError

    def raw_value(self, samples: Samples, sequences: Sequences | None = None) -> torch.Tensor:
        raise NotImplementedError

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def eval(self) -> None:
        pass


def test_a_policy_with_memory_remembers_until_it_is_reset() -> None:
    spec = env_spec(2, {"policy": ((3,), "float32")}, continuous(*BOUNDS))
    policy = LoadedPolicy(Steps(spec), spec, Path("model_1.safetensors"), 1, seed=0)
    one, two = np.zeros(3, np.float32), np.zeros((2, 3), np.float32)
    assert [policy(one)[0] for _ in range(3)] == [1, 2, 3]
    policy.reset()
    assert policy(one)[0] == 1
    assert policy(two)[:, 0].tolist() == [1, 1], "other envs"
    assert policy(two)[:, 0].tolist() == [2, 2]
    policy.reset(np.array([True, False]))
    assert policy(two)[:, 0].tolist() == [1, 3]


def test_stacks_of_pictures_are_each_episodes_own(tmp_path: Path) -> None:
    spec = env_spec(2, {"camera": ((6, 8, 1), "uint8")}, continuous((-1e9, 1e9)))
    encoders = {"camera": {"channels": [3], "kernel": 3, "stride": 2}}
    path, _ = saved(tmp_path, spec, {"frame_stack": 3}, encoders=encoders)
    both, alone = load_policy(path), [load_policy(path) for _ in range(2)]
    shown = np.random.default_rng(0).integers(256, size=(7, 2, 6, 8, 1), dtype=np.uint8)
    repeated = []
    for step, pictures in enumerate(shown):
        found = both(pictures)
        own = [policy(picture) for policy, picture in zip(alone, pictures, strict=True)]
        np.testing.assert_allclose(found, own, rtol=1e-5)
        repeated.append(np.allclose(found, load_policy(path)(pictures)))
        if step == 3:  # env 1 goes on
            both.reset(np.array([True, False]))
            alone[0].reset()
    assert repeated == [True] + 6 * [False], "what was seen before counts"


def test_the_package_imports_nothing_until_a_public_name_is_asked_for() -> None:
    program = (
        "import sys, isaac_hydra_ext\n"
        "assert 'torch' not in sys.modules\n"
        "print([m for m in sys.modules if m.startswith('isaac_hydra_ext')])\n"
        "print({'train', 'load_policy'} <= {*dir(isaac_hydra_ext)})\n"
        "from isaac_hydra_ext import load_policy, train\n"
        "print(load_policy.__module__, train.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "['isaac_hydra_ext']",
        "True",
        "isaac_hydra_ext.evaluation.loaded_policy isaac_hydra_ext.appo_runner",
    ], done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'load_polcy'"):
        _ = isaac_hydra_ext.load_polcy  # type: ignore[attr-defined]
