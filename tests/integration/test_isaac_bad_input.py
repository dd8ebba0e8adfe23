"""Bad input to Isaac Lab's commands: one line, an exit code, and nothing is left."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from isaac_commands import SMALL, Stage

pytestmark = pytest.mark.timeout(900)


@pytest.mark.isaaclab
@pytest.mark.timeout(1800)
def test_bad_input_to_the_real_one_is_one_line_and_nothing_is_left(
    on_stage: Callable[[str], Stage],
) -> None:
    isaac = on_stage("real")
    isaac.env |= {"CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(isaac.where)}
    isaac.env["ISAACSIM_ASSET_ROOT"] = "/nowhere"
    isaac.selectors = []
    kitless = "physics=newton_mjwarp"
    camera = ["--task", "Isaac-Cartpole-Camera-Direct", "--agent", "none"]
    for arguments, says in (
        ([kitless, "--task", "Isaac-Cartpol-Direct-v0"], "did you mean 'Isaac-Cartpole-Direct'"),
        (["physics=newton_mjwrap"], "env.physics=newton_mjwrap: "),
        (["physics=isaacsim_physx"], "needs Isaac Sim (Kit), which cannot be started here"),
        ([kitless, *camera, "renderer=isaacsim_rtx"], "needs Isaac Sim (Kit), which cannot be"),
        ([kitless, *camera, "renderer=ovrtx"], "ovrtx"),
        ([kitless, "renderer=newton_renderer"], "has no such preset; it has none"),
        ([kitless, "env.decimatoin=4"], "env.cfg.decimatoin: the task has no such setting; did "),
        ([kitless, "env.episode_length_s=abc"], "env.cfg.episode_length_s=abc: str does not fit"),
        ([kitless], "default_ground_plane.usda (the asset root is /nowhere;"),
        ([kitless, "--device", "tpu"], "rollout.device=tpu: not a device"),
        ([kitless, "--device", "cuda:0"], "rollout.device=cuda:0: PyTorch sees 0 CUDA devices"),
    ):
        done = isaac.train(*SMALL, *arguments)
        assert done.returncode != 0, arguments
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: ") and says in line
        assert isaac.left_running() == []
    done = isaac.run("env=isaac_cartpole", f"env.{kitless}")  # the task's own device
    assert done.returncode == 2 and isaac.left_running() == []
    (line,) = done.stderr.strip().splitlines()
    assert "rollout.device=cuda:0: the simulation wants a GPU" in line


@pytest.mark.parametrize(
    ("generation", "arguments", "says"),
    [
        ("v2", ["--task", "Isaac-Cartpol-Direct-v0"], "did you mean 'Isaac-Cartpole-Direct-v0'"),
        ("ga", ["env.physics=isaacsim_physx"], "isaacsim_physx or newton_kamino or newton_m"),
        ("ga", ["env.usd_path=/nowhere/a.usd"], "/nowhere/a.usd"),
        ("ga", ["--device", "cuda:99"], "rollout.device=cuda:99: PyTorch sees"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_an_exit_code(
    generation: str, arguments: list[str], says: str, on_stage: Callable[[str], Stage]
) -> None:
    isaac = on_stage(generation)
    if any(token.startswith(("physics=", "env.physics=")) for token in arguments):
        isaac.selectors = []
    done = isaac.train(*SMALL, *arguments)
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and says in line
    assert isaac.left_running() == [] and not list(isaac.where.glob("logs/appo/.unnamed/*"))


def test_a_gpu_simulation_without_a_gpu_is_refused(on_stage: Callable[[str], Stage]) -> None:
    isaac = on_stage("ga")
    isaac.env["CUDA_VISIBLE_DEVICES"] = ""
    done = isaac.run("env=isaac_cartpole", *[f"env.{s}" for s in isaac.selectors])
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "rollout.device=cuda:0: the simulation wants a GPU" in line


@pytest.mark.skipif(importlib.util.find_spec("isaaclab") is not None, reason="there is a real one")
def test_without_isaac_lab_or_with_an_old_one_the_way_out_is_told(tmp_path: Path) -> None:
    old = tmp_path / "old"
    for package in ("omni/isaac/lab", "omni/isaac", "omni"):
        (old / package).mkdir(parents=True, exist_ok=True)
        (old / package / "__init__.py").write_text("")
    isaac, ours = Stage("ga", tmp_path), os.environ.get("PYTHONPATH", "")
    for path, says in ((str(old), "Isaac Lab 1.x is installed"), (ours, "./isaaclab.sh -p")):
        isaac.env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, [path, ours])))
        done = isaac.run("env=isaac_cartpole", "rollout.device=cpu")
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert says in line
