"""Whether a checkpoint belongs to an env and its networks, and what of it does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.fit import check_fits, fitting_part
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import CheckpointError
from isaac_hydra_ext.learner.ppo.ppo import PPO

from ..builders import continuous, discrete, env_spec, run_config

SPEC = env_spec(2)


def file_of(spec: EnvSpec = SPEC, **policy: Any) -> Checkpoint:
    learner = PPO(run_config(policy=policy), spec, torch.device("cpu"))
    meta = json.loads(json.dumps({"spec": spec.to_json(), "iteration": 1}))  # as in a file
    return Checkpoint(Path("some/model_1.safetensors"), learner.state_dict(), meta)


def misfit(checkpoint: Checkpoint, spec: EnvSpec = SPEC) -> str:
    own = PPO(run_config(), spec, torch.device("cpu")).state_dict()
    with pytest.raises(CheckpointError) as caught:
        check_fits(checkpoint, own, spec.to_json())
    message = str(caught.value)
    assert message.startswith("some/model_1.safetensors: ") and "\n" not in message
    return message


def test_the_same_env_and_network_fit_whatever_the_number_of_envs() -> None:
    own = PPO(run_config(), SPEC, torch.device("cpu")).state_dict()
    check_fits(file_of(env_spec(64)), own, SPEC.to_json())


def test_a_run_whose_std_is_not_learned_goes_on() -> None:
    policy = {"learn_std": False}
    own = PPO(run_config(policy=policy), SPEC, torch.device("cpu")).state_dict()
    check_fits(file_of(**policy), own, SPEC.to_json())


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    message = misfit(file_of(hidden_dims=[16, 8]))
    assert "policy.actor.2.weight is (8, 16), expected (16, 16)" in message


def test_a_tensor_that_is_missing_is_named() -> None:
    checkpoint = file_of()
    del checkpoint.tensors["policy.critic.0.bias"]
    assert "'policy.critic.0.bias'" in misfit(checkpoint)


def test_a_tensor_that_the_network_does_not_have_is_named() -> None:
    # A deeper network, or the running statistics of values: dropping it would change the policy.
    assert "policy.actor.6.weight" in misfit(file_of(hidden_dims=[16, 16, 1]))
    assert "policy.value_normalizer.mean" in misfit(file_of(normalize_values=True))


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (env_spec(2, {"policy": ((4,), "float32")}), "obs"),
        (env_spec(2, {"actor": ((3,), "float32")}), "obs"),
        (env_spec(2, {"policy": ((3,), "float64")}), "obs"),
        (env_spec(2, action=discrete(3)), "action"),
        (env_spec(2, action=continuous((-2.0, 2.0))), "action"),
    ],
)
def test_another_environment_is_named_by_what_differs(other: EnvSpec, key: str) -> None:
    assert f"of another environment: {key} is " in misfit(file_of(other))


def test_unbounded_actions_fit_themselves_after_json() -> None:
    spec = env_spec(2, action=continuous((-float("inf"), float("inf"))))
    own = PPO(run_config(), spec, torch.device("cpu")).state_dict()
    check_fits(file_of(spec), own, spec.to_json())


def moments(size: int) -> dict[str, torch.Tensor]:
    names = {"exp_avg": (size,), "exp_avg_sq": (size,), "step": ()}
    return {f"optimizer.{name}": torch.zeros(shape) for name, shape in names.items()}


def own_state(**policy: Any) -> dict[str, torch.Tensor]:
    return PPO(run_config(policy=policy), SPEC, torch.device("cpu")).state_dict()


PARAMS = PPO(run_config(), SPEC, torch.device("cpu")).policy.num_params


def test_the_optimizer_may_be_absent_on_either_side() -> None:
    checkpoint, own = file_of(), own_state()
    check_fits(checkpoint, own | moments(PARAMS), SPEC.to_json())
    checkpoint.tensors.update(moments(PARAMS))
    check_fits(checkpoint, own, SPEC.to_json())


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("optimizer.exp_avg", torch.zeros(3), r"optimizer.exp_avg is (3,), expected ("),
        ("optimizer.step", torch.zeros(1), "optimizer.step is (1,), expected ()"),
        ("optimizer.exp_avg_sq", None, "has no tensor 'optimizer.exp_avg_sq'"),
        ("optimizer.evil/../x", torch.zeros(1), "has 'optimizer.evil/../x', which the optimizer"),
        ("lr", torch.tensor(1.0, dtype=torch.float64), "lr is torch.float64, expected torch.float"),
        ("lr", torch.tensor(float("nan")), "lr holds NaN or Inf"),
        ("policy.std", torch.zeros(1, dtype=torch.complex64), "policy.std is torch.complex64"),
        ("policy.std", torch.zeros(0), "policy.std is (0,), expected (1,)"),
    ],
)
def test_tensors_that_learning_could_not_go_on_from(
    name: str, tensor: torch.Tensor | None, says: str
) -> None:
    checkpoint = file_of()
    checkpoint.tensors.update(moments(PARAMS))
    if tensor is None:
        del checkpoint.tensors[name]
    else:
        checkpoint.tensors[name] = tensor
    assert says in misfit(checkpoint)


def test_how_many_more_differences_there_are_and_what_to_do_is_said() -> None:
    message = misfit(file_of(hidden_dims=[16, 8]))
    assert "(and " in message and "checkpoint.partial=true" in message


# ------------------------------------------------------------------ what fits of it


def test_all_of_a_checkpoint_that_fits_is_taken() -> None:
    checkpoint = file_of()
    checkpoint.tensors.update(moments(PARAMS))
    part, left_out = fitting_part(checkpoint, own_state(init_std=0.5), SPEC.to_json())
    assert left_out == []
    assert part.tensors.keys() == checkpoint.tensors.keys()
    assert all(torch.equal(part.tensors[k], v) for k, v in checkpoint.tensors.items())


def test_what_fits_is_taken_and_the_rest_is_listed_and_kept() -> None:
    checkpoint = file_of(hidden_dims=[16, 8], normalize_values=True)
    checkpoint.tensors.update(moments(5))
    before = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
    own = own_state()
    part, left_out = fitting_part(checkpoint, own, SPEC.to_json())
    assert part.tensors.keys() == own.keys()
    for name, tensor in part.tensors.items():
        fits = name in before and before[name].shape == own[name].shape
        fits &= not name.startswith("optimizer.")  # these are of other parameters
        assert torch.equal(tensor, before[name] if fits else own[name]), name
    text = "\n".join(left_out)
    for name in ("actor.2.weight", "actor.4.weight", "critic.4.weight", "value_normalizer.mean"):
        assert f"policy.{name}" in text
    assert "policy.actor.0.weight" not in text
    assert all(line.startswith("not taken from some/model_1.safetensors: ") for line in left_out)
    check_fits(part, own, SPEC.to_json())
    learner = PPO(run_config(), SPEC, torch.device("cpu"))
    learner.load_state_dict(part.tensors)
    assert torch.equal(
        learner.state_dict()["policy.actor.0.weight"], before["policy.actor.0.weight"]
    )


def test_of_another_environment_what_does_not_see_it_is_taken() -> None:
    checkpoint = file_of(env_spec(2, {"policy": ((5,), "float32")}))
    own = own_state()
    part, left_out = fitting_part(checkpoint, own, SPEC.to_json())
    assert left_out[0].split(": ", 1)[1].startswith("of another environment: obs is ")
    deep, first = "policy.actor.2.weight", "policy.actor.0.weight"
    assert torch.equal(part.tensors[deep], checkpoint.tensors[deep])
    assert torch.equal(part.tensors[first], own[first])
