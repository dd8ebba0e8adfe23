"""A policy, an algorithm and terms of other packages, with no edit of this one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from registration import register_package
from third_party import Remembering
from unit.builders import InProcessRun, changed, learner_state, run_config

from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint
from isaac_hydra_ext.errors import ConfigError, ExportError
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate
from isaac_hydra_ext.export.export import export

Train = Callable[..., Checkpoint]
ENTRY_POINTS = """
[isaac_hydra_ext.algorithms]
student = third_party:Student
reading_student = third_party:Reading

[isaac_hydra_ext.policies]
remembering = third_party:Remembering

[isaac_hydra_ext.terms]
reward_model = third_party:reward_model
pull_to_zero = third_party:pull_to_zero
gone = third_party:no_such_thing
"""
SYNCHRONOUS = ("rollout.max_policy_lag=0", "experiment.seed=5")
MODEL = "+ppo.terms.reward_model.weight=1.0"


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register them as an installed package would."""
    register_package(tmp_path / "site", "third_party", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


# ------------------------------------------------------------------ an algorithm


def test_a_student_clones_a_teacher_with_two_workers(train_run: Train) -> None:
    teacher = train_run("rollout.num_workers=0", "experiment.max_iterations=3")
    own = (
        "algorithm.kind=student", f"+algorithm.kwargs.teacher={teacher.path}",
        "+algorithm.kwargs.lr=0.003", "rollout.num_workers=2", "experiment.seed=6",
    )  # fmt: skip
    losses = []
    for iterations in (1, 12):
        run = train_run(*own, f"experiment.max_iterations={iterations}")
        summary = json.loads((run.path.parents[1] / "summary.json").read_text())
        losses.append(summary["learned"]["Loss/imitation"])
    assert losses[1] < losses[0] / 10
    assert summary["samples_consumed"] == 12 * 2 * 4 * 16 and summary["policy_lag_mean"] > 0
    assert not any(name.startswith("optimizer.") for name in run.tensors)
    resumed = train_run(*own, f"resume={run.path}", "experiment.max_iterations=13")
    assert resumed.meta["iteration"] == 13


def test_an_algorithm_whose_field_nobody_records_is_refused(train_run: Train) -> None:
    teacher = train_run("rollout.num_workers=0", "experiment.max_iterations=1")
    with pytest.raises(ConfigError) as refused:
        train_run(
            "algorithm.kind=reading_student", f"+algorithm.kwargs.teacher={teacher.path}",
            "+algorithm.kwargs.lr=0.003", "rollout.num_workers=0",
        )  # fmt: skip
    assert "'mean', which policy.kind=actor_critic does not record" in str(refused.value)


# ------------------------------------------------------------------ a policy


@pytest.mark.parametrize("workers", [0, 1])
def test_a_policy_finds_what_it_recorded_in_the_update(train_run: Train, workers: int) -> None:
    Remembering.found.clear()
    train_run(
        *SYNCHRONOUS, "policy.kind=remembering", f"rollout.num_workers={workers}",
        "experiment.max_iterations=3",
    )  # fmt: skip
    assert len(Remembering.found) >= 3 and max(Remembering.found) < 1e-5


def test_a_policy_of_another_package_is_evaluated_and_not_exported(train_run: Train) -> None:
    run = train_run(
        "policy.kind=remembering", "rollout.num_workers=0", "experiment.max_iterations=1"
    )
    assert evaluate(run, 2, seed=0)["episodes"] == 2
    with pytest.raises(ExportError, match="policy.kind=remembering, of another package"):
        export(run)


def test_what_was_recorded_under_older_weights_is_what_those_gave(train_run: Train) -> None:
    Remembering.found.clear()
    train_run(
        "policy.kind=remembering", "rollout.num_workers=0", "rollout.deterministic=true",
        "experiment.max_iterations=3",
    )  # fmt: skip
    assert Remembering.found[0] < 1e-5 < Remembering.found[-1]


# ------------------------------------------------------------------ terms


def test_a_term_is_trained_saved_and_resumed_to_the_last_bit(train_run: Train) -> None:
    own = (*SYNCHRONOUS, MODEL, "rollout.num_workers=0")
    straight = train_run(*own, "experiment.max_iterations=4", "checkpoint.every=2")
    half = load_checkpoint(straight.path.with_name("model_2.safetensors"))
    resumed = train_run(*own, "experiment.max_iterations=4", f"resume={half.path}")
    names = [name for name in straight.tensors if name.startswith("term.reward_model.")]
    assert len(names) == 5  # parameters, three of Adam's, and its own
    for name, tensor in straight.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    assert straight.tensors["term.reward_model.samples_seen"] == 4 * 4 * 16
    assert straight.tensors["term.reward_model.step"] > half.tensors["term.reward_model.step"]


def test_a_term_of_its_own_parameters_leaves_the_policy_every_bit(train_run: Train) -> None:
    own = (*SYNCHRONOUS, "rollout.num_workers=0", "experiment.max_iterations=2")
    without, with_model = train_run(*own), train_run(*own, MODEL)
    for name, tensor in without.tensors.items():
        assert torch.equal(tensor, with_model.tensors[name]), name


def test_a_term_may_train_the_policy(train_run: Train) -> None:
    run = InProcessRun(
        run_config(8, ppo={"terms": {"pull_to_zero": {"weight": 50.0}}, "entropy_coef": 0.0})
    )
    pulled = []
    for k in range(8):
        run.collect(k)
        pulled.append(run.update(k)["Loss/pull_to_zero"])
    assert pulled[-1] < pulled[0] / 5


def test_an_undone_update_undoes_the_terms_too() -> None:
    run = InProcessRun(run_config(8, ppo={"terms": {"reward_model": {"weight": 1.0}}}))
    run.collect(0)
    run.update(0)
    run.collect(1)
    before = learner_state(run.learner)
    run.learner.batch.reward_TN[2, 3] = float("nan")
    assert run.update(1)["Loss/undone"] == 1.0
    assert changed(before, learner_state(run.learner)) == []
    run.collect(2)
    run.update(2)
    after = changed(before, learner_state(run.learner))
    assert "term.reward_model.parameters" in after and "term.reward_model.samples_seen" in after


def test_a_term_that_nobody_registers_or_that_cannot_be_imported_is_refused() -> None:
    for name, says in (
        ("reward_modell", "ppo.terms=reward_modell: must be one of"),
        ("gone", "ppo.terms=gone: third_party:no_such_thing cannot be imported"),
    ):
        with pytest.raises(ConfigError) as refused:
            run_config(ppo={"terms": {name: {}}})
        assert says in str(refused.value) and "\n" not in str(refused.value)
