"""Students and teachers of pictures: learned from where the rollout left them."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.export.export import export
from isaac_hydra_ext.learner.algorithm import make_algorithm
from isaac_hydra_ext.learner.distillation import distillation
from isaac_hydra_ext.learner.distillation.distillation import Distillation
from isaac_hydra_ext.learner.distillation.teacher import load_teacher
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.rollout.in_process import InProcessCollector

from ..builders import InProcessRun, changed, learner_state, run_config
from .test_distillation import teacher

ENCODER = {"channels": [4], "kernel": [3], "stride": [2]}
SEES = {"encoders": {"camera": ENCODER}, "obs_groups": {"actor": ["camera"]}}
BLIND: dict[str, Any] = {"obs_groups": {"actor": ["policy"]}}


def pictured(floats: bool) -> dict[str, Any]:
    modules = ["tests.integration.pictured_env"]
    return {"id": "TestPictured-v0", "imports": modules, "kwargs": {"floats": floats}}


def student_config(
    where: Path,
    theirs: dict[str, Any],
    ours: dict[str, Any],
    storage: str,
    floats: bool = True,
    rollout: dict[str, Any] | None = None,
) -> RunConfig:
    """A student of a teacher that has drawn its weights."""
    small = {"policy": {"hidden_dims": [8]}, "env": pictured(floats)}
    spec = InProcessCollector(run_config(4, **small)).build(run_config(4, **small), where, None, 0)
    groups = theirs["obs_groups"]["actor"]
    return run_config(
        4,
        env=pictured(floats),
        rollout={"steps_per_env": 8, "image_storage": storage},
        policy={"hidden_dims": [8], **ours},
        algorithm={"kind": "distillation"},
        distillation={
            "teacher": str(teacher(where / "teacher", spec, rollout, **theirs)),
            "teacher_groups": groups,
            "gradient_length": 3,
        },
    )


@pytest.mark.parametrize(
    ("theirs", "ours"), [(SEES, SEES), (BLIND, SEES), (SEES, BLIND)], ids=["both", "student", "it"]
)
@pytest.mark.parametrize("storage", ["uint8", "as_is", "float16"])
def test_pictures_are_learned_from_where_they_lie_and_give_what_a_copy_does(
    tmp_path: Path, theirs: dict[str, Any], ours: dict[str, Any], storage: str
) -> None:
    as_bytes = storage == "uint8"
    kept = "as_is" if as_bytes else storage
    run = InProcessRun(student_config(tmp_path, theirs, ours, kept, not as_bytes))
    copied = make_algorithm(run.config, run.learner.batch._spec, torch.device("cpu"))
    assert isinstance(copied, Distillation)
    batch, policy = run.learner.batch, copied.policy
    spec = batch._spec
    copied.batch = RolloutBatch(spec, 1, 8, torch.float32, torch.device("cpu"))
    before = learner_state(run.learner)
    for k in range(2):
        slots = run.source.gather(k)
        run.learner.load(slots)
        copied.load(slots)
        assert "camera" not in batch.obs and list(batch.images) == ["camera"]
        wanted = {"uint8": torch.uint8, "as_is": torch.float32, "float16": torch.float16}
        assert batch.images["camera"][0:1].dtype == wanted[storage]
        metrics = run.update(k)
        assert metrics["Loss/undone"] == 0.0 and metrics["Loss/behavior"] > 0.0
        assert copied.update(k)["Loss/behavior"] == pytest.approx(metrics["Loss/behavior"])
    assert changed(learner_state(run.learner), learner_state(cast("Any", copied))) == []
    assert any("policy.actor." in name for name in changed(before, learner_state(run.learner)))
    assert policy.images.keys() == {"camera"}


def test_a_teacher_is_shown_pictures_in_parts_of_so_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = InProcessRun(student_config(tmp_path, SEES, SEES, "as_is"))
    run.collect(0)
    learner = cast("Distillation", run.learner)
    whole = learner._asked(learner.batch.samples_N)
    monkeypatch.setattr(distillation, "CHUNK_BYTES", 5 * 4 * 6 * 24)  # five at a time
    seen: list[int] = []
    answer = learner._teacher.answer
    learner._teacher.answer = lambda o, s: (seen.append(len(o["camera"])), answer(o, s))[1]
    torch.testing.assert_close(learner._asked(learner.batch.samples_N), whole)
    assert seen == [5] * 6 + [2]


@pytest.mark.parametrize("storage", ["as_is", "float16"])
def test_a_teacher_reads_pictures_as_its_own_rollouts_held_them(
    tmp_path: Path, storage: str
) -> None:
    config = student_config(tmp_path, SEES, SEES, "as_is", rollout={"image_storage": storage})
    picture = torch.rand(3, 6, 24, 1)
    learned_from = load_teacher(Path(str(config.distillation.teacher)), torch.device("cpu"))
    found, of_halves = (
        learned_from.mean_action({"camera": x}, {})[0] for x in (picture, picture.half().float())
    )
    assert torch.equal(found, of_halves) == (storage == "float16")


def test_a_teacher_of_stacks_sees_those_of_the_running_episodes(tmp_path: Path) -> None:
    """As the one that acts: frame by frame, also where a rollout begins in an episode."""
    run = InProcessRun(student_config(tmp_path, SEES, BLIND, "as_is", rollout={"frame_stack": 3}))
    learner = cast("Distillation", run.learner)
    loaded = load_teacher(Path(str(run.config.distillation.teacher)), torch.device("cpu"))
    state = {name: x.repeat_interleave(4, 0) for name, x in loaded.fresh.items()}
    for k in range(2):
        run.collect(k)
        assert not bool((learner.batch.terminated_TN | learner.batch.truncated_TN).any())
        found = learner._asked(learner.batch.samples_N).unflatten(0, (8, 4))
        for t in range(8):
            picture = learner.batch.images["camera"][4 * t : 4 * t + 4]
            wanted, state = loaded.mean_action({"camera": picture}, state)
            torch.testing.assert_close(found[t], wanted)
        run.source.release(k)
        run._publish(k + 1)
    assert len(state) == 2


def test_an_exported_teacher_of_stacks_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    config = student_config(tmp_path, SEES, BLIND, "as_is", rollout={"frame_stack": 3})
    trained = load_checkpoint(Path(str(config.distillation.teacher)))
    files = export(trained, tmp_path / "files").directory
    with pytest.raises(ConfigError, match="sees stacks of pictures; name the run") as refused:
        load_teacher(files / "policy.onnx", torch.device("cpu"))
    assert "\n" not in str(refused.value)
