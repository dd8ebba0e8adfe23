"""Pictures from the env to the exported file: learned, played, filmed, refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from docs_blocks import blocks
from hydra import compose, initialize_config_module
from registration import register_package

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.checkpoints.exported import OnnxPolicy
from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.errors import IsaacHydraExtError
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate
from isaac_hydra_ext.export.export import export
from isaac_hydra_ext.export.run_onnx import run_onnx

CATCH = [
    "env.kind=gym", "env.id=TestCatch-v0", "env.imports=[tests.integration.catch_env]",
    "policy.encoders={policy: {channels: [8, 16], kernel: [4, 3], stride: [2, 2]}}",
    "policy.hidden_dims=[64]", "logging.console=quiet", "logging.report=false",
]  # fmt: skip
LEARNING = [
    "rollout.envs_per_worker=16", "rollout.steps_per_env=32", "ppo.num_mini_batches=4",
    "ppo.update_epochs=4", "ppo.lr_schedule=fixed",
]  # fmt: skip


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A policy that has learned to catch from pictures alone, in a worker of its own."""
    where = tmp_path_factory.mktemp("catch")
    typed = [
        *CATCH, *LEARNING, f"experiment.output_dir={where}", "rollout.num_workers=1",
        "experiment.max_iterations=110",
    ]  # fmt: skip
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        summary = train(compose("train_appo", overrides=typed), typed)
    return find_checkpoint(summary["run_dir"], where)[0]


def test_a_task_whose_state_is_in_pictures_alone_is_learned(learned: Checkpoint) -> None:
    assert evaluate(learned, 100, 0)["mean_return"] >= 0.9


def test_the_exported_file_takes_uint8_and_plays_the_same(
    learned: Checkpoint, tmp_path: Path
) -> None:
    directory = export(learned, tmp_path / "exported").directory
    (said,) = json.loads((directory / "policy.json").read_text())["obs"]
    assert (said["shape"], said["dtype"], said["mean"]) == ([16, 16, 3], "uint8", None)
    played = run_onnx(OnnxPolicy(directory), 32, 3)
    assert played["mean_return"] == evaluate(learned, 32, 3)["mean_return"]


@pytest.mark.parametrize(
    ("encoders", "said"),
    [
        ("{camera: {}}", "policy.encoders.camera: the env has no group 'camera'; there are policy"),
        ("{policy: {kernel: [4, 9, 1]}}", "kernel[1]=9: larger than the 4 x 4 pixels"),
        ("{policy: {pool: mean}}", "policy.encoders.policy.pool=mean: must be one of flatten"),
        ("{policy: {kind: vit}}", "policy.encoders.policy.kind=vit: must be one of cnn"),
        ("{policy: 3}", "policy.encoders.policy=3: {kind: cnn, ...} is expected here"),
    ],
)
def test_what_cannot_be_is_one_line(
    train_run: Callable[..., Checkpoint], encoders: str, said: str
) -> None:
    with pytest.raises(IsaacHydraExtError) as found:
        train_run(*CATCH[:3], f"policy.encoders={encoders}", "rollout.num_workers=0")
    assert said in str(found.value) and "\n" not in str(found.value)


def test_workers_and_this_process_learn_the_same_from_stacks(
    train_run: Callable[..., Checkpoint],
) -> None:
    common = [
        *CATCH, "rollout.frame_stack=3", "rollout.deterministic=true", "experiment.max_iterations=3"
    ]  # fmt: skip
    here, there = (train_run(*common, f"rollout.num_workers={w}") for w in (0, 1))
    assert all(torch.equal(tensor, there.tensors[name]) for name, tensor in here.tensors.items())


def test_evaluator_video_eval_and_the_exported_file_play_the_same_stacks(
    train_run: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    iio = pytest.importorskip("imageio.v3", reason="pip install 'isaac-hydra-ext[video]'")
    last = train_run(
        *CATCH, "rollout.frame_stack=3", "policy.share_encoders=true", "rollout.num_workers=0",
        "experiment.max_iterations=2", "evaluate.every=2", "evaluate.num_episodes=32",
        "evaluate.num_envs=32", "evaluate.seed=3", "logging.video.every=2",
        "logging.video.length=3",
    )  # fmt: skip
    run = last.path.parent.parent
    (evaluated,) = map(json.loads, (run / "evaluations.jsonl").read_text().splitlines())
    filmed = evaluate(last, 32, 3, video=tmp_path / "here.mp4")
    for video in (run / "videos" / "eval_2.mp4", tmp_path / "here.mp4"):
        assert iio.imread(video).shape[1:] == (16, 16, 3)
    exported = run_onnx(OnnxPolicy(export(last, tmp_path / "exported").directory), 32, 3)
    for key in ("mean_return", "std_return", "mean_length", "episodes"):
        assert evaluated[key] == filmed[key] == exported[key]


def test_the_encoder_of_the_docs_trains_plays_and_is_exported(
    train_run: Callable[..., Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (b for b in blocks("python") if b.name == "my_pkg/encoders.py")
    path = tmp_path / "site" / block.name
    path.parent.mkdir(parents=True)
    path.write_text(block.text)
    entry_point = "[isaac_hydra_ext.encoders]\npatches = my_pkg.encoders:build\n"
    register_package(tmp_path / "site", "my_pkg", entry_point)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    common = [*CATCH[:3], "policy.hidden_dims=[8]", "experiment.max_iterations=1"]

    def trained(settings: str, workers: int) -> Checkpoint:
        encoders = f"policy.encoders={{policy: {settings}}}"
        return train_run(*common, encoders, f"rollout.num_workers={workers}")

    named = trained("{kind: patches, size: 8}", 1)
    placed = trained("{kind: 'my_pkg.encoders:build', size: 8}", 0)
    kernel = "policy.actor_encoders.policy.embed.weight"
    assert named.tensors[kernel].shape == placed.tensors[kernel].shape == (32, 3, 8, 8)
    played = run_onnx(OnnxPolicy(export(named, tmp_path / "exported").directory), 8, 3)
    assert played["mean_return"] == evaluate(named, 8, 3)["mean_return"]
    for wrong, said in (
        ("{kind: patches, sise: 8}", " cannot be built: TypeError: "),
        ("{kind: patches, size: 17}", " cannot be built: RuntimeError: "),
        ("{kind: my_pkg.encoder:build}", ".kind=my_pkg.encoder:build: my_pkg.encoder:build cannot"),
    ):
        with pytest.raises(IsaacHydraExtError) as found:
            trained(wrong, 0)
        assert str(found.value).startswith(f"policy.encoders.policy{said}")
        assert "\n" not in str(found.value)
