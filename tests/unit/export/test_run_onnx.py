"""An exported policy plays as the trained one does, without torch, or says in a line why not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces

from isaac_hydra_ext.checkpoints.exported import OnnxPolicy
from isaac_hydra_ext.checkpoints.file import save_checkpoint
from isaac_hydra_ext.errors import (
    ConfigError,
    EnvError,
    ExportError,
    IsaacHydraExtError,
)
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate
from isaac_hydra_ext.export.export import FILES, export
from isaac_hydra_ext.export.run_onnx import run_onnx

from ..builders import discrete, env_spec
from ..checkpoint_samples import meta
from ..gym_samples import PREFIX, Counter, register
from .test_export import pendulum, trained

register()


class Choosy(Counter):
    """Rewards each step with the choice itself, which begins at 5."""

    def __init__(self) -> None:
        super().__init__(action=spaces.Discrete(3, start=5))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return (self.observe(), float(action), *super().step(action)[2:])


if f"{PREFIX}Choosy-v0" not in gym.registry:
    gym.register(f"{PREFIX}Choosy-v0", Choosy, max_episode_steps=4)


@pytest.mark.parametrize(
    ("episodes", "memory"), [(1, {}), (33, {}), (3, {"recurrent": {"kind": "gru", "hidden": 8}})]
)
def test_run_onnx_plays_what_appo_eval_plays(
    episodes: int, memory: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = pendulum(tmp_path, policy={"squash": "tanh", **memory})
    policy = OnnxPolicy(export(checkpoint).directory)
    played, wanted = run_onnx(policy, episodes, 4), evaluate(checkpoint, episodes, 4)
    for key, value in played.items():
        assert value == pytest.approx(wanted[key], rel=1e-3), key


def test_choices_that_begin_elsewhere_reach_the_env_as_it_counts_them(tmp_path: Path) -> None:
    spec = env_spec(obs={"policy": ((2,), "float32")}, action=discrete(3))
    checkpoint = trained(tmp_path, spec, env={"id": f"{PREFIX}Choosy-v0"})
    played = run_onnx(OnnxPolicy(export(checkpoint).directory), 3, 0)
    assert played["mean_length"] == 4.0
    assert played["mean_return"] == evaluate(checkpoint, 3, 0)["mean_return"]
    assert played["mean_return"] >= 4 * 5


def test_dict_observations_and_several_choices_play(tmp_path: Path) -> None:
    obs = {"b": ((1,), "float64"), "a": ((2, 2), "uint8"), "scalar": ((), "float32")}
    checkpoint = trained(
        tmp_path, env_spec(obs=obs, action=discrete(2)), env={"id": f"{PREFIX}Groups-v0"}
    )
    played = run_onnx(OnnxPolicy(export(checkpoint).directory), 2, 0)
    assert played["mean_return"] == 10.0


def test_an_export_that_is_not_whole_is_one_line(tmp_path: Path) -> None:
    directory = export(pendulum(tmp_path)).directory

    def refusal(where: Path = directory) -> str:
        with pytest.raises(ExportError) as caught:
            OnnxPolicy(where)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"did you mean {directory}?" in refusal(tmp_path / "run")
    assert "appo export RUN writes one" in refusal(tmp_path / "nowhere")
    onnx, about = directory / "policy.onnx", directory / "policy.json"
    whole, text = onnx.read_bytes(), about.read_text()
    onnx.write_bytes(whole[:-1])
    assert "not the file that policy.json describes" in refusal()
    onnx.unlink()
    assert "cannot be read" in refusal()
    onnx.write_bytes(whole)
    for broken in (text[:200], "[]", "{}", text.replace('"obs": [', '"obss": [')):
        about.write_text(broken)
        assert "damaged" in refusal()
    about.write_text(text.replace('"schema": 1', '"schema": 99'))
    assert "newer than this version" in refusal()


def test_an_env_that_is_another_is_one_line(tmp_path: Path) -> None:
    directory = export(pendulum(tmp_path)).directory
    about = json.loads((directory / "policy.json").read_text())

    def refusal(**env: Any) -> IsaacHydraExtError:
        policy = OnnxPolicy(directory)
        policy.about["env"] |= env
        with pytest.raises(IsaacHydraExtError) as caught:
            run_onnx(policy, 1, 0)
        assert "\n" not in str(caught.value)
        return caught.value

    assert "'policy' is (4,) here, the policy's is (3,)" in str(refusal(id="CartPole-v1"))
    assert "not registered with Gymnasium" in str(refusal(id="Nothing-v0"))
    assert "cannot import 'no_such_module'" in str(refusal(imports=["no_such_module"]))
    assert "appo eval RUN plays it" in str(refusal(kind="mjlab"))
    assert about["env"]["kind"] == "gym"
    with pytest.raises(ConfigError, match="--episodes=0"):
        run_onnx(OnnxPolicy(directory), 0, 0)
    policy = OnnxPolicy(directory)
    policy.about["action"]["dim"] = 2
    with pytest.raises(EnvError, match="takes 1 actions here, the policy has 2"):
        run_onnx(policy, 1, 0)


def test_the_commands_export_and_play_without_torch(tmp_path: Path) -> None:
    checkpoint = pendulum(tmp_path)
    checkpoint.path.parent.mkdir(parents=True)
    save_checkpoint(
        checkpoint.path.parent, 9, checkpoint.tensors, meta(9, (1.0,)) | checkpoint.meta
    )
    program = """
import sys
from isaac_hydra_ext.cli.main import main
try:
    main()
finally:
    print("torch" if "torch" in sys.modules else "none")
"""

    def appo(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    said = appo("export", "run")
    assert "appo run-onnx" in said
    assert "checked: 100 inputs, largest difference" in said
    assert all((tmp_path / "run" / "exported" / name).is_file() for name in FILES)
    *_, line, imported = appo("run-onnx", "run/exported", "--episodes", "2", "--json").splitlines()
    assert json.loads(line)["mean_length"] == 200.0
    assert imported == "none", "appo run-onnx imports torch"
    run = tmp_path / "elsewhere" / "toy" / "2026-01-01_00-00-00"
    shutil.copytree(tmp_path / "run" / "checkpoints", run / "checkpoints")
    for word, *settings in (("latest",), ("best", "experiment.name=toy")):
        said = appo("export", word, "experiment.output_dir=elsewhere", *settings)
        assert f"wrote {run}/exported/policy.json" in said
    said = appo("export", "best", "experiment.nam=toy", code=2)
    assert "not a setting of appo export; did you mean 'experiment.name' or" in said
    said = appo("export", "nowhere", code=1)
    assert "nowhere: no such file or directory" in said
    assert len(said.splitlines()) == 1
