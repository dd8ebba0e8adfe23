"""The environment contract's plain data and its check of observations."""

import json

import pytest
import torch

from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec, check_obs
from isaac_hydra_ext.errors import EnvError, did_you_mean

from ..builders import continuous, discrete, env_spec

MIXED = {"a": ((3,), "float32"), "image": ((2, 5), "uint8"), "scalar": ((), "float64")}


@pytest.mark.parametrize("action", [continuous((-1, 2), (-float("inf"), 3)), discrete(2, 3)])
def test_specs_survive_json(action: object) -> None:
    spec = env_spec(4, MIXED, action, step_dt=0.02, finite_horizon=True, has_state=True)  # type: ignore
    assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_a_tensors_spec_has_no_batch_dimension_and_names_a_torch_dtype(dtype: torch.dtype) -> None:
    spec = TensorSpec.of(torch.zeros(7, 2, 5, dtype=dtype))
    assert spec.shape == (2, 5)
    assert getattr(torch, spec.dtype) is dtype


GOOD = {"policy": torch.zeros(2, 3)}


@pytest.mark.parametrize(
    ("obs", "says"),
    [
        ({}, "'policy' is missing"),
        ({"other": torch.zeros(2, 3)}, "'policy' is missing; the env gave \\['other'\\]"),
        ({"policy": torch.zeros(2, 4)}, "expected .*3.*got .*4"),
        ({"policy": torch.zeros(3, 3)}, "expected \\[2, .*got \\[3, "),
        ({"policy": torch.zeros(2, 3, dtype=torch.float64)}, "float32, got .*float64"),
    ],
)
def test_observations_that_changed_are_refused(obs: dict[str, torch.Tensor], says: str) -> None:
    check_obs(GOOD, env_spec())
    with pytest.raises(EnvError, match=says):
        check_obs(obs, env_spec())


def test_groups_beyond_the_spec_are_ignored() -> None:
    check_obs({**GOOD, "more": torch.zeros(9)}, env_spec())


def test_near_names() -> None:
    known = ["gamma", "lam", "lr", "lr_schedule"]
    assert did_you_mean("gama", known) == "; did you mean 'gamma'?"
    assert did_you_mean("zzzz", known) == ""
