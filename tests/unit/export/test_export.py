"""Exported policies: the same actions as the policy's, and whole."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isaac_hydra_ext.checkpoints.exported import OnnxPolicy
from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint, save_checkpoint
from isaac_hydra_ext.checkpoints.saved_policy import config_of, load_weights
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import (
    CheckpointError,
    ExportError,
    IsaacHydraExtError,
    MissingDependencyError,
)
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate
from isaac_hydra_ext.export.export import FILES, export, export_actor
from isaac_hydra_ext.export.formats import DeployedPolicy, Reference, compare
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.models.registry import make_policy

from ..builders import continuous, discrete, env_spec, run_config
from ..checkpoint_samples import meta
from ..gym_samples import register

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e .[export]")
pytest.importorskip("onnx")
register()
INF = float("inf")


def trained(
    where: Path, spec: EnvSpec | None = None, steps: int = 1, **sections: dict[str, Any]
) -> Checkpoint:
    """A checkpoint whose normalisers have seen data far from 0, and whose weights are not new."""
    config: RunConfig = run_config(**sections)
    spec = env_spec() if spec is None else spec
    learner = PPO(config, spec, torch.device("cpu"))
    torch.manual_seed(5)
    obs = {
        g: (100 + 20 * torch.randn(64, *s.shape)).to(getattr(torch, s.dtype))
        for g, s in spec.obs.items()
    }
    learner.policy.update_statistics(obs, torch.randn(64))
    for parameter in learner.policy.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    about = json.loads(
        json.dumps({"config": config.to_dict(), "spec": spec.to_json(), "iteration": 9})
    )
    path = where / "run" / "checkpoints" / "model_9.safetensors"
    return Checkpoint(path, dict(learner.state_dict()), about)


def pendulum(where: Path, **sections: dict[str, Any]) -> Checkpoint:
    return trained(where, env_spec(action=continuous((-2.0, 2.0))), **sections)


CASES: dict[str, tuple[EnvSpec, dict[str, Any]]] = {
    "bounded": (env_spec(action=continuous((-0.1, 0.2), (-1, INF))), {}),
    "squashed": (env_spec(action=continuous((-3, 5), (-INF, INF))), {"squash": "tanh"}),
    "clipped": (env_spec(action=continuous((-INF, INF))), {"clip_actions": 0.05}),
    "unbounded": (env_spec(action=continuous((-INF, INF))), {"normalize_obs": False}),
    "log std": (env_spec(), {"std_type": "log"}),
    "fixed std": (env_spec(), {"learn_std": False}),
    "heteroscedastic": (
        env_spec(action=continuous((-3, 5), (-INF, INF))),
        {"distribution": "heteroscedastic", "squash": "tanh"},
    ),
    "beta": (env_spec(action=continuous((-3, 5), (-INF, INF))), {"distribution": "beta"}),
    "lstm": (env_spec(), {"recurrent": {"kind": "lstm", "hidden": 8, "layers": 2}}),
    "gru, choices": (env_spec(action=discrete(3, 2)), {"recurrent": {"kind": "gru", "hidden": 8}}),
    "one choice": (env_spec(action=discrete(4)), {}),
    "several choices": (env_spec(action=discrete(3, 2, 5)), {}),
    "no hidden layer": (env_spec(), {"hidden_dims": []}),
    "dtypes": (
        env_spec(
            obs={
                "b": ((1,), "float64"),
                "a": ((2, 2), "uint8"),
                "scalar": ((), "float32"),
                "flag": ((3,), "bool"),
                "count": ((2,), "int64"),
            }
        ),
        {},
    ),
    "groups in order": (
        env_spec(obs={"x": ((2,), "float32"), "my.group": ((3,), "float32"), "z": ((1,), "uint8")}),
        {"obs_groups": {"actor": ["z", "my.group"], "critic": ["x"]}},
    ),
    "pictures": (
        env_spec(
            obs={
                "rgb": ((9, 8, 3), "uint8"),
                "x": ((2,), "float32"),
                "depth": ((1, 8, 9), "float32"),
            }
        ),
        {
            "encoders": {
                "rgb": {"channels": [3], "kernel": 3, "stride": 2, "pool": "spatial_softmax"},
                "depth": {
                    "channels": [2, 2],
                    "kernel": 3,
                    "stride": 2,
                    "norm": "layer",
                    "padding": "zeros",
                },
            },
            "share_encoders": True,
        },
    ),
    "terms of a group": (
        env_spec(obs={"policy/pos": ((2,), "float32"), "policy/image": ((2, 2, 3), "uint8")}),
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_both_files_act_as_the_policy_does(name: str, tmp_path: Path) -> None:
    spec, policy = CASES[name]
    done = export(trained(tmp_path, spec, policy=policy))
    assert done.directory == tmp_path / "run" / "exported"
    assert done.max_difference <= 1e-5
    assert sorted(p.name for p in done.directory.iterdir()) == sorted(FILES)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["exported"], "nothing temporary"


@pytest.mark.parametrize("activation", ["elu", "relu", "tanh", "selu", "silu", "gelu"])
def test_every_activation(activation: str, tmp_path: Path) -> None:
    export(trained(tmp_path, policy={"activation": activation}))


def test_what_policy_json_says(tmp_path: Path) -> None:
    spec, policy = CASES["groups in order"]
    spec = EnvSpec(**{**vars(spec), "action": continuous((-2, INF)), "step_dt": 0.02})
    directory = export(trained(tmp_path, spec, policy=policy)).directory
    about = json.loads((directory / "policy.json").read_text())
    assert [(o["input"], o["shape"], o["dtype"]) for o in about["obs"]] == [
        ("z", [1], "uint8"),
        ("my.group", [3], "float32"),
    ]
    assert [len(o["mean"]) for o in about["obs"]] == [1, 3]
    assert all(95 < m < 105 for o in about["obs"] for m in o["mean"])
    assert about["action"] == {
        "outputs": ["actions"], "kind": "continuous", "dim": 1, "nvec": [], "low": [-2.0],
        "high": [None], "squash": "none", "clip": None,
    }  # fmt: skip
    assert (about["step_dt"], about["iteration"]) == (0.02, 9)
    assert about["env"]["id"] == "Pendulum-v1"
    inputs = onnxruntime.InferenceSession(directory / "policy.onnx").get_inputs()
    assert [(i.name, i.shape) for i in inputs] == [("z", ["N", 1]), ("my.group", ["N", 3])]


def test_one_group_has_the_names_of_isaac_labs_exporters(tmp_path: Path) -> None:
    directory = export(trained(tmp_path)).directory
    session = onnxruntime.InferenceSession(directory / "policy.onnx")
    assert [i.name for i in session.get_inputs()] == ["obs"]
    assert [o.name for o in session.get_outputs()] == ["actions"]
    actions = torch.jit.load(str(directory / "policy.pt"))(torch.zeros(1, 3))
    assert actions.shape == (1, 1)


def test_torchscript_holds_the_actor_alone(tmp_path: Path) -> None:
    loaded = torch.jit.load(str(export(trained(tmp_path)).directory / "policy.pt"))
    names = {name for name, _ in (*loaded.named_parameters(), *loaded.named_buffers())}
    assert {"low", "high", "policy.actor.0.weight"} <= names
    assert not [n for n in names if "critic" in n or "value" in n]


@pytest.mark.parametrize("case", ["bounded", "squashed", "one choice"])
def test_torchscript_moves_whole_to_another_device(case: str, tmp_path: Path) -> None:
    spec, policy = CASES[case]
    directory = export(trained(tmp_path, spec, policy=policy)).directory
    moved = torch.jit.load(str(directory / "policy.pt"), map_location="meta")
    outputs = moved(torch.zeros(5, 3, device="meta"))
    actions = outputs[0] if isinstance(outputs, tuple) else outputs
    assert (actions.device.type, actions.shape) == ("meta", (5, spec.action.dim))


@pytest.mark.parametrize("spec", [env_spec(), env_spec(action=discrete(3))])
def test_a_file_that_differs_is_not_written(
    spec: EnvSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = trained(tmp_path, spec)
    before = (export(checkpoint).directory / "policy.onnx").read_bytes()
    right = DeployedPolicy.forward

    def wrong(self: DeployedPolicy, *obs: torch.Tensor) -> Any:
        found = right(self, *obs)
        return (found[0], found[1] + 3e-4) if isinstance(found, tuple) else found * 0.999

    monkeypatch.setattr(DeployedPolicy, "forward", wrong)
    with pytest.raises(ExportError, match=r"policy.onnx: differs from the policy by .*e-0[1-4]"):
        export(checkpoint)
    assert (tmp_path / "run" / "exported" / "policy.onnx").read_bytes() == before
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["exported"]
    with pytest.raises(ExportError, match="nothing was written"):
        export(checkpoint, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_choices_must_be_those_of_the_best_logits() -> None:
    logits = np.array([[0.0, 1.0, 5.0, 4.0]], np.float32)
    right, wrong = np.array([[1, 0]]), np.array([[0, 0]])
    expected = Reference([right, logits], (2, 2), 1e-5)
    assert compare("x", [right, logits], expected) == 0.0
    with pytest.raises(ExportError, match="x: its actions are not its best logits"):
        compare("x", [wrong, logits], expected)
    with pytest.raises(ExportError, match=r"x: gives \(1, 2\)"):
        compare("x", [right, logits[:, :2]], expected)
    with pytest.raises(ExportError, match="x: differs from the policy by nan"):
        compare("x", [right, logits * np.float32("nan")], expected)


def test_what_is_allowed_grows_with_what_is_added_up(tmp_path: Path) -> None:
    """Large weights round by more than 1e-5, in outputs that are clipped to 1 as well."""
    spec = env_spec(obs={"policy": ((235,), "float32")}, action=continuous(*[(-1.0, 1.0)] * 12))
    checkpoint = trained(tmp_path, spec, policy={"hidden_dims": [512, 512, 256]})
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("policy.actor."):
            tensor.mul_(4.0)
    directory = export(checkpoint).directory
    checked = json.loads((directory / "policy.json").read_text())["checked"]
    assert 1e-5 < checked["max_difference"] <= checked["allowed"]
    small = export(trained(tmp_path / "small")).directory
    assert json.loads((small / "policy.json").read_text())["checked"]["allowed"] < 3e-5


def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(kind: type[IsaacHydraExtError], *args: Any) -> str:
        with pytest.raises(kind) as caught:
            export(*args)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    checkpoint = trained(tmp_path)
    (tmp_path / "file").touch()
    assert "cannot write there" in refusal(ExportError, checkpoint, tmp_path / "file")
    checkpoint.tensors["policy.actor.0.bias"][3] = float("nan")
    assert "holds NaN or Inf" in refusal(CheckpointError, checkpoint)
    checkpoint.tensors["policy.actor.0.bias"] = torch.zeros(3)
    assert "policy.actor.0.bias is (3,)" in refusal(CheckpointError, checkpoint)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = refusal(MissingDependencyError, trained(tmp_path))
    assert "pip install 'isaac-hydra-ext[export]'" in said
    assert not (tmp_path / "run").exists()


class Bessel(torch.nn.Module):
    """What ONNX has no operator for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def bessel(settings: object, spec: object) -> torch.nn.Module:
    return Bessel()


def test_an_encoder_that_no_file_can_hold_is_one_line(tmp_path: Path) -> None:
    encoders = {"policy": {"kind": f"{__name__}:bessel"}}
    with pytest.raises(ExportError, match=r"^policy.onnx: cannot be made of these net") as caught:
        export(trained(tmp_path, policy={"encoders": encoders}))
    assert "bessel_j0" in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "run").iterdir()), "nothing was written"


def test_a_lone_checkpoint_is_exported_beside_itself(tmp_path: Path) -> None:
    found = trained(tmp_path)
    lone = Checkpoint(tmp_path / "downloads" / "model_9.safetensors", found.tensors, found.meta)
    assert export(lone).directory == tmp_path / "downloads" / "exported"


def test_a_memory_is_an_input_and_an_output_as_rsl_rl_names_it(tmp_path: Path) -> None:
    memory = {"recurrent": {"kind": "lstm", "hidden": 8, "layers": 2}}
    directory = export(trained(tmp_path, policy=memory)).directory
    session = onnxruntime.InferenceSession(directory / "policy.onnx")
    shapes = {x.name: x.shape for x in (*session.get_inputs(), *session.get_outputs())}
    state = [2, "N", 8]
    assert shapes.pop("obs") == ["N", 3] and shapes.pop("actions")[0] == "N"
    assert shapes == {"h_in": state, "c_in": state, "h_out": state, "c_out": state}
    about = json.loads((directory / "policy.json").read_text())["state"]
    assert about[1] == {"input": "c_in", "output": "c_out", "shape": [2, None, 8]}


def test_stacks_of_pictures_are_an_input_and_are_made_from_each_episodes_own(
    tmp_path: Path,
) -> None:
    spec = env_spec(obs={"camera": ((6, 8, 1), "uint8"), "x": ((2,), "float32")})
    encoders = {"camera": {"channels": [3], "kernel": 3, "stride": 2}}
    checkpoint = trained(tmp_path, spec, policy={"encoders": encoders}, rollout={"frame_stack": 3})
    directory = export(checkpoint).directory
    inputs = onnxruntime.InferenceSession(directory / "policy.onnx").get_inputs()
    assert [(i.name, i.shape) for i in inputs] == [("camera", ["N", 3, 6, 8, 1]), ("x", ["N", 2])]
    about = json.loads((directory / "policy.json").read_text())["obs"]
    assert [(o["shape"], o["frame_stack"]) for o in about] == [([3, 6, 8, 1], 3), ([2], 1)]
    exported, own = OnnxPolicy(directory), make_policy(config_of(checkpoint), spec)
    load_weights(own, checkpoint)
    for count in (2, 1):  # another number of envs begins anew
        state = own.initial_state(count)
        for step in range(7):
            if step == 4:
                exported.forget()
                state = own.initial_state(count)
            camera = torch.randint(256, (count, 6, 8, 1), dtype=torch.uint8)
            obs = {"camera": camera, "x": 100 + 20 * torch.randn(count, 2)}
            with torch.no_grad():
                acted = own.act(obs, state, None)
            state = acted.state
            found = exported.act({group: x.numpy() for group, x in obs.items()})
            np.testing.assert_allclose(found, acted.env_action_BA.numpy(), atol=1e-5)


def test_the_actor_alone_is_smaller_and_plays_the_same(tmp_path: Path) -> None:
    made = pendulum(tmp_path, policy={"normalize_obs": True, "normalize_values": True})
    made.path.parent.mkdir(parents=True)
    about = meta(9, (1.0,)) | made.meta
    whole = load_checkpoint(save_checkpoint(made.path.parent, 9, made.tensors, about))
    path = export_actor(whole, tmp_path / "actor")
    actor = load_checkpoint(path)
    assert all(name.startswith(("policy.actor", "policy.std")) for name in actor.tensors)
    assert path.stat().st_size < whole.path.stat().st_size
    expected = evaluate(whole, 3, seed=0)
    assert {**evaluate(actor, 3, seed=0), "checkpoint": expected["checkpoint"]} == expected
    del actor.tensors["policy.std"]
    with pytest.raises(CheckpointError, match="policy.std is missing"):
        evaluate(actor, 1, seed=0)
