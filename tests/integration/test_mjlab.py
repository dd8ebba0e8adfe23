"""Real robot environments: mjlab's tasks through the same run."""

import dataclasses
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.config.logging_schema import VideoConfig
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import StepResult, check_obs
from isaac_hydra_ext.envs.mjlab import MjlabVecEnv
from isaac_hydra_ext.errors import RenderError
from isaac_hydra_ext.evaluation.video import VideoWriter, check_rendering
from isaac_hydra_ext.evaluation.viewer import Over

pytest.importorskip("mjlab", reason="pip install -e '.[mjlab]'")
pytestmark = [pytest.mark.mjlab, pytest.mark.timeout(600)]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.release
def test_go1_trains_with_two_workers(command: Command, tmp_path: Path) -> None:
    line = ["env=mjlab_go1_flat", "rollout.num_workers=2", "rollout.envs_per_worker=16"]
    done = command(*line, "experiment.max_iterations=3", timeout=500)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "logs").glob("*/*/checkpoints/model_3.safetensors")
    meta = load_checkpoint(path).meta
    # What the task's rsl_rl configuration says is the default here.
    assert meta["config"]["policy"]["hidden_dims"] == [512, 256, 128]
    assert meta["config"]["rollout"]["steps_per_env"] == 24
    assert meta["config"]["ppo"]["num_mini_batches"] == 4
    assert meta["config"]["policy"]["obs_groups"] == {"actor": ["actor"], "critic": ["critic"]}
    assert meta["env_steps"] == 3 * 2 * 16 * 24
    summary = json.loads((path.parent.parent / "summary.json").read_text())
    assert summary["samples_abandoned"] == 0


@pytest.mark.release
def test_a_camera_is_learned_from_as_the_task_says(command: Command, tmp_path: Path) -> None:
    done = command(
        "env=mjlab_any", "env.task=Mjlab-Lift-Cube-Yam-Rgb", "rollout.num_workers=1",
        "rollout.envs_per_worker=4", "rollout.steps_per_env=4", "experiment.max_iterations=3",
        timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "actor reads actor (26), camera (3x32x32); the critic critic (29), cam" in done.stdout
    assert "is the same in all" not in done.stdout + done.stderr, "the camera sees something"
    (path,) = (tmp_path / "logs").glob("*/*/checkpoints/model_3.safetensors")
    checkpoint = load_checkpoint(path)
    policy = checkpoint.meta["config"]["policy"]
    (encoder,) = policy["encoders"].values()
    assert (encoder["channels"], encoder["pool"]) == ([16, 32], "spatial_softmax")
    assert policy["obs_groups"] == {"actor": ["actor", "camera"], "critic": ["critic", "camera"]}
    kernel = "policy.{}_encoders.camera.convolutions.0.weight"
    shapes = [checkpoint.tensors[kernel.format(role)].shape for role in ("actor", "critic")]
    assert shapes == [(16, 3, 5, 5)] * 2


def test_cartpole_repeats_with_a_typed_override_above_the_task(
    command: Command, tmp_path: Path
) -> None:
    line = ["env=mjlab_cartpole_balance", "rollout.num_workers=1", "rollout.deterministic=true"]
    line += ["rollout.envs_per_worker=8", "ppo.gamma=0.9", "experiment.max_iterations=2"]
    for _ in range(2):
        done = command(*line, timeout=500)
        assert done.returncode == 0, done.stderr
    first, second = (
        load_checkpoint(p) for p in (tmp_path / "logs").glob("*/*/checkpoints/model_2.safetensors")
    )
    assert first.meta["config"]["ppo"]["gamma"] == 0.9
    assert first.meta["config"]["ppo"]["entropy_coef"] == 0.01  # the task's
    for name, tensor in first.tensors.items():
        assert tensor.equal(second.tensors[name]), name


def test_a_misspelt_task_names_the_near_one(command: Command) -> None:
    done = command("env=mjlab_any", "env.task=Mjlab-Cartpole-Balanse", timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "did you mean 'Mjlab-Cartpole-Balance'" in line


def test_one_env_begins_anew_and_the_others_go_on() -> None:
    config = EnvConfig(kind="mjlab", task="Mjlab-Cartpole-Balance")
    env = MjlabVecEnv(config, 3, "cpu", seed=1)
    env.reset(1)
    for _ in range(4):
        before = env.step(torch.ones(3, env.spec.action.dim)).obs
    rows = env.reset_envs([1])
    check_obs(rows, dataclasses.replace(env.spec, num_envs=1))
    assert env._env.episode_length_buf.tolist() == [4, 0, 4]
    after = env.step(torch.zeros(3, env.spec.action.dim)).obs
    env.close()
    # One step moves the others a little; env 1 has been put somewhere else.
    moves = torch.cat([(after[g] - before[g]).flatten(1) for g in after], dim=1).abs().amax(1)
    assert moves[1] > 2 * max(moves[0], moves[2])


class Ten:
    """Ten steps of nothing; after the fifth, env 1 begins anew, as the page's reset has it."""

    def __init__(self, env: MjlabVecEnv) -> None:
        self.env, self.steps, self.begun = env, 0, dict[int, list[bool]]()

    def reset(self) -> None:
        self.env.reset(1)

    def begin(self, obs: Mapping[str, torch.Tensor], begun_B: torch.Tensor | None = None) -> None:
        assert begun_B is not None
        check_obs(obs, self.env.spec)
        self.begun[self.steps] = begun_B.tolist()

    def step(self) -> StepResult:
        self.steps += 1
        if self.steps > 10:
            raise Over
        result = self.env.step(torch.zeros(2, self.env.spec.action.dim))
        if self.steps == 5:
            self.env.reset_envs([1])
        return result


def test_mjlabs_viewer_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    import viser

    config = EnvConfig(kind="mjlab", task="Mjlab-Cartpole-Balance")
    env = MjlabVecEnv(config, 2, "cpu", seed=1)
    server = viser.ViserServer("127.0.0.1", 18090, verbose=False)
    connected: list[Callable[[Any], Any]] = []
    monkeypatch.setattr(server, "on_client_connect", connected.append)
    player = Ten(env)
    with pytest.raises(Over):
        env.view(player, lambda: server)
    server.stop()
    env.close()
    assert player.begun == {0: [True, True], 5: [False, True]}
    browser = SimpleNamespace(camera=SimpleNamespace())
    for callback in connected:
        callback(browser)
    assert browser.camera.position[2] > 0, "looks from above"


def test_a_video_of_cartpole(tmp_path: Path) -> None:
    iio = pytest.importorskip("imageio.v3", reason="pip install -e '.[video]'")
    env = MjlabVecEnv(EnvConfig(kind="mjlab", task="Mjlab-Cartpole-Balance"), 2, "cpu", 1)
    try:
        drawn = MjlabVecEnv(
            EnvConfig(kind="mjlab", task="Mjlab-Cartpole-Balance"), 2, "cpu", 1, render=True
        )
        check_rendering(drawn)
    except RenderError as e:
        pytest.skip(str(e))
    obs, obs_drawn = env.reset(7), drawn.reset(7)
    assert torch.equal(obs["actor"], obs_drawn["actor"]), "drawing changes nothing"
    with VideoWriter(drawn, tmp_path / "a.mp4", VideoConfig(length=6)) as video:
        video.add()
        for _ in range(7):
            action = torch.ones(2, 1)
            results = env.step(action), drawn.step(action)
            assert torch.equal(results[0].obs["actor"], results[1].obs["actor"])
            video.add()
    frames = iio.imread(tmp_path / "a.mp4")
    assert frames.shape == (7, 240, 320, 3)
    assert iio.immeta(tmp_path / "a.mp4")["fps"] == pytest.approx(1 / drawn.spec.step_dt)
    assert frames.std() > 10, "not one colour"
    assert abs(frames[5].astype(int) - frames[0]).max() > 50, "something moves"
    drawn.close()
    env.close()
