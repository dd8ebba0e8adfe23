"""Students: they reach their teacher's return on what they see; all else is as in any run."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import two_views_env
from hydra import compose, initialize_config_module
from test_determinism import Train, assert_bit_identical

from isaac_hydra_ext import load_policy
from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.errors import CheckpointError, InvalidNumberError
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate
from isaac_hydra_ext.export.export import export, export_actor

ENV = ("env=gym_any", "env.id=TwoViews-v0", "env.imports=[two_views_env]")
SMALL = (
    "rollout.envs_per_worker=16", "rollout.steps_per_env=40", "policy.hidden_dims=[32,32]",
    "logging.report=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A PPO run that saw the whole state."""
    root = tmp_path_factory.mktemp("teacher")
    typed = [
        f"experiment.output_dir={root}", *ENV, *SMALL, "policy.obs_groups={actor: [full]}",
        "experiment.max_iterations=40", "ppo.num_mini_batches=4", "rollout.num_workers=0",
        "logging.console=quiet",
    ]  # fmt: skip
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        summary = train(compose("train_appo", overrides=typed), typed)
    return find_checkpoint(summary["run_dir"], root)[0]


def student(teacher: Checkpoint, *more: str) -> tuple[str, ...]:
    """Overrides of one that sees positions alone."""
    run_dir = teacher.path.parent.parent
    return (
        *ENV, "policy.obs_groups={actor: [policy]}", "algorithm.kind=distillation",
        f"distillation.teacher={run_dir}", "distillation.gradient_length=5", "policy.init_std=0.1",
        "distillation.lr=0.003", "rollout.init_at_random_ep_len=false", *more,
    )  # fmt: skip


def test_a_student_without_the_speed_reaches_its_teachers_return(
    teacher: Checkpoint,
    command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    shutil.copy(two_views_env.__file__, tmp_path)
    done = command(
        *student(teacher, *SMALL), "rollout.num_workers=2", "experiment.max_iterations=60",
        "distillation.update_epochs=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the student reads policy (2); its teacher full (2)" in done.stdout
    assert "nobody reads" not in done.stderr and "batch_size" not in done.stdout
    run_dir = Path(done.stdout.split("run: ")[-1].splitlines()[0])
    learned = json.loads((run_dir / "summary.json").read_text())["learned"]
    assert list(learned) == ["Loss/behavior", "Policy/mean_std", "Loss/learning_rate"]
    assert learned["Policy/mean_std"] == pytest.approx(0.1)
    run = find_checkpoint(str(run_dir), tmp_path)[0]
    reached = [evaluate(c, 32, seed=1)["mean_return"] for c in (teacher, run)]
    assert reached[0] > -2.5, "the teacher has learned the task: doing nothing gives -60"
    assert reached[1] > 1.1 * reached[0]
    assert run.meta["config"]["distillation"]["teacher"] == str(teacher.path)


def test_workers_and_resuming_change_no_bit(train_run: Train) -> None:
    teacher = train_run("rollout.num_workers=0", "experiment.max_iterations=1")
    own = (
        "algorithm.kind=distillation", f"distillation.teacher={teacher.path}", "experiment.seed=4",
        "rollout.max_policy_lag=0", "experiment.max_iterations=8", "checkpoint.every=4",
    )  # fmt: skip
    whole = train_run(*own, "rollout.num_workers=1")
    assert_bit_identical(whole, train_run(*own, "rollout.num_workers=0"))
    half = whole.path.with_name("model_4.safetensors")
    resumed = train_run(*own, "rollout.num_workers=0", f"resume={half}")
    assert_bit_identical(whole, resumed)
    assert resumed.meta["env_states"] == whole.meta["env_states"]
    assert not [name for name in whole.tensors if "critic" in name]


def test_ranks_learn_from_one_teacher(teacher: Checkpoint, train_run: Train) -> None:
    two = "experiment.devices=[cpu,cpu]"
    run = train_run(*student(teacher, two, "rollout.num_workers=0"), "experiment.max_iterations=2")
    assert run.meta["ranks"] == 2 and run.meta["env_steps"] == 2 * 2 * 4 * 16


@pytest.fixture
def small_student(teacher: Checkpoint, train_run: Train) -> Checkpoint:
    return train_run(*student(teacher, "rollout.num_workers=0", "experiment.max_iterations=3"))


def test_a_student_is_evaluated_exported_and_loaded(
    small_student: Checkpoint, tmp_path: Path
) -> None:
    expected = evaluate(small_student, 4, seed=3)["mean_return"]
    lone = export_actor(small_student, tmp_path / "actor")
    assert evaluate(load_checkpoint(lone), 4, seed=3)["mean_return"] == expected
    assert export(small_student, tmp_path / "files").max_difference < 1e-5
    policy = load_policy(small_student.path)
    assert policy(torch.zeros(5, 2)).shape == (5, 1)


def test_ppo_goes_on_from_a_student_when_asked_to_take_what_fits(
    small_student: Checkpoint, train_run: Train
) -> None:
    own = (
        *ENV, "policy.obs_groups={actor: [policy], critic: [full]}", "rollout.num_workers=0",
        f"resume={small_student.path}", "experiment.max_iterations=4", "ppo.lr=1e-30",
        "ppo.lr_schedule=fixed",
    )  # fmt: skip
    with pytest.raises(CheckpointError) as refused:
        train_run(*own)
    assert "was trained with algorithm.kind=distillation, here it is ppo" in str(refused.value)
    tuned = train_run(*own, "checkpoint.partial=true")
    assert tuned.meta["iteration"] == 4
    for name, tensor in small_student.tensors.items():
        if name.startswith(("policy.actor.", "policy.std")):
            assert torch.equal(tuned.tensors[name], tensor), name
    assert tuned.tensors["lr"] == torch.tensor(1e-30)  # PPO's, and no moments of the student's
    assert tuned.tensors["optimizer.step"] == small_student.meta["config"]["ppo"]["update_epochs"]
    assert any(name.startswith("policy.critic.") for name in tuned.tensors)


def test_nan_that_the_teacher_alone_would_read_is_found(
    teacher: Checkpoint, train_run: Train
) -> None:
    own = student(teacher, "rollout.num_workers=0", "+env.kwargs.broken_at=3")
    with pytest.raises(InvalidNumberError, match="obs/full"):
        train_run(*own, "experiment.max_iterations=1")
