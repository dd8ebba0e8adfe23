"""A student on a GPU; skipped where there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from unit.builders import InProcessRun, continuous, env_spec, learner_state, run_config
from unit.learner.test_distillation import teacher

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.export.export import export

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PENDULUM = env_spec(2, {"policy": ((3,), "float32")}, continuous((-2.0, 2.0)))
PICTURED = env_spec(
    2,
    {"full": ((2,), "float32"), "policy": ((2,), "float32"), "camera": ((6, 24, 1), "uint8")},
    continuous((-1.0, 1.0)),
)
SEES = {
    "encoders": {"camera": {"channels": [8], "kernel": [3], "stride": [2]}},
    "obs_groups": {"actor": ["camera"]},
}


def student(teacher_of: Path, policy: dict[str, Any], **sections: dict[str, Any]) -> InProcessRun:
    ppo = {"precision": "fp32", **sections.pop("ppo", {})}
    own = {"teacher": str(teacher_of), "teacher_groups": ["policy"], "lr": 1e-4}
    return InProcessRun(
        run_config(
            16,
            experiment={"device": "cuda:0"},
            algorithm={"kind": "distillation"},
            rollout={"steps_per_env": 110},  # episodes of 200 steps end inside, here and there
            policy={"hidden_dims": [32], **policy},
            distillation={**own, **sections.pop("distillation", {})},
            ppo=ppo,
            **sections,
        )
    )


def learned(run: InProcessRun) -> dict[str, torch.Tensor]:
    """What three iterations come to."""
    for k in range(3):
        run.collect(k)
        metrics = run.update(k)
        assert metrics["Loss/undone"] == 0.0 and metrics["Loss/behavior"] > 0.0
    return learner_state(run.learner)


def assert_recorded_is_eager(runs: list[InProcessRun]) -> None:
    eager, recorded = (learned(run) for run in runs)
    assert [run.learner._update is not None for run in runs] == [False, True]
    for name, tensor in eager.items():
        torch.testing.assert_close(recorded[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [None, "lstm", "gru"])
def test_the_recorded_update_of_a_student_is_the_eager_one(
    kind: str | None, tmp_path: Path
) -> None:
    path = teacher(tmp_path, PENDULUM)
    memory = {"recurrent": {"kind": kind, "hidden": 32}}
    own = {"update_epochs": 2, "max_grad_norm": 1.0}
    assert_recorded_is_eager(
        [
            student(path, memory, ppo={"cuda_graphs": graphs}, distillation=own)
            for graphs in (False, True)
        ]
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_recorded_teacher_remembers_as_the_eager_one_does(kind: str, tmp_path: Path) -> None:
    path = teacher(tmp_path, PENDULUM, recurrent={"kind": kind, "hidden": 16})
    runs = [student(path, {}, ppo={"cuda_graphs": graphs}) for graphs in (False, True)]
    assert_recorded_is_eager(runs)
    assert [name for name in learner_state(runs[1].learner) if name.startswith("teacher.")]


@pytest.mark.parametrize("reads", ["full", "camera"])
def test_the_recorded_update_from_pictures_is_the_eager_one(reads: str, tmp_path: Path) -> None:
    theirs = SEES if reads == "camera" else {"obs_groups": {"actor": ["full"]}}
    path = teacher(tmp_path, PICTURED, **theirs)
    env = {"id": "TestPictured-v0", "imports": ["tests.integration.pictured_env"]}
    own = {"teacher_groups": [reads]}
    assert_recorded_is_eager(
        [
            student(path, SEES, env=env, ppo={"cuda_graphs": graphs}, distillation=own)
            for graphs in (False, True)
        ]
    )


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("kind", [None, "lstm"])
def test_a_student_learns_in_lower_precision(
    precision: str, kind: str | None, tmp_path: Path
) -> None:
    run = student(
        teacher(tmp_path, PENDULUM),
        {"recurrent": {"kind": kind, "hidden": 32}},
        ppo={"precision": precision},
    )
    learned(run)


def exported(where: Path, spec: EnvSpec) -> tuple[Path, Path]:
    path = teacher(where / "run" / "checkpoints", spec)
    return path, export(load_checkpoint(path), where / "files").directory / "policy.onnx"


def test_an_exported_teacher_answers_on_the_cpu_what_its_run_does_on_the_gpu(
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    losses = []
    for source in exported(tmp_path, PENDULUM):
        run = student(source, {})
        run.collect(0)
        losses.append(run.update(0)["Loss/behavior"])
        assert (run.learner._update is None) == (source.suffix == ".onnx")  # the host waits for it
        run.collect(1)
        assert run.update(1)["Loss/undone"] == 0.0
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
