"""Knobs of another algorithm than the run's: one line, and only where they were typed."""

from types import SimpleNamespace
from typing import Any

import pytest

from isaac_hydra_ext.config.unread import pictures_in_vain, typed_in_vain
from isaac_hydra_ext.system import entry_points

from ..builders import run_config

STUDENT: dict[str, Any] = {"algorithm": {"kind": "distillation"}, "distillation": {"teacher": "."}}


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["ppo.lr=1e-4"], "ppo.lr"),
        (["+ppo.terms.rnd.weight=1", "ppo={clip: 0.1, cuda_graphs: false}"],
         "ppo.terms.rnd.weight, ppo.clip"),
        (["policy.obs_groups={actor: [policy], critic: [policy]}", "policy.init_std=0.1"],
         "policy.obs_groups.critic"),
        (["ppo.precision=fp32", "ppo.cuda_graphs=false", "ppo.max_bad_updates=0", "ppo=vtrace",
          "distillation.lr=1e-3", "policy.hidden_dims=[8]", "rollout.steps_per_env=8"], None),
    ],
)  # fmt: skip
def test_a_student_run_says_what_it_does_not_read(typed: list[str], named: str | None) -> None:
    lines = typed_in_vain(run_config(**STUDENT), typed)
    if named is None:
        assert lines == []
        return
    (line,) = lines
    assert line.startswith(f"no effect with algorithm.kind=distillation: {named} (a student has ")
    assert "\n" not in line and "ppo.precision, ppo.cuda_graphs, ppo.max_bad_updates" in line


def test_a_ppo_run_says_that_it_has_no_teacher() -> None:
    typed = ["distillation.teacher=RUN", "ppo.lr=1e-4", "ppo.clip=0.1"]
    (line,) = typed_in_vain(run_config(), typed)
    assert line == (
        "no effect with algorithm.kind=ppo: distillation.teacher (for a student say "
        "algorithm.kind=distillation)"
    )


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        (None, ""),  # it does not say
        (("ppo.lr", "ppo.symmetry"), "distillation.loss, ppo.lr_schedule ({reads} ppo.lr, "
         "ppo.symmetry)"),
        (("ppo", "distillation"), ""),
        (("ppo"), "distillation.loss ({reads} ppo)"),  # who forgets the comma
        ((), "distillation.loss, ppo.lr, ppo.lr_schedule, ppo.symmetry.use_mirror_loss "
         "({reads} nothing)"),
    ],
)  # fmt: skip
def test_a_registered_algorithm_may_say_what_it_reads(
    knobs: tuple[str, ...] | str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = SimpleNamespace() if knobs is None else SimpleNamespace(knobs=knobs)
    monkeypatch.setattr(entry_points, "load", lambda *_: make)
    config = run_config()
    config.algorithm.kind = "other"
    typed = [
        "distillation.loss=huber", "ppo.lr=1e-4", "ppo.lr_schedule=fixed",
        "ppo.symmetry.use_mirror_loss=true", "policy.hidden_dims=[8]",
    ]  # fmt: skip
    told = told.format(reads="of ppo and distillation it reads")
    expected = [f"no effect with algorithm.kind=other: {told}"] if told else []
    assert typed_in_vain(config, typed) == expected


BYTES, FLOATS = {"camera": "uint8"}, {"camera": "float32"}


@pytest.mark.parametrize(
    ("sections", "pictures", "actor", "said"),
    [
        ({"policy": {"share_encoders": True}}, {}, ["policy"],
         "policy.share_encoders=true (actor and critic have no group that policy.encoders names in "
         "common)"),
        ({"policy": {"share_encoders": True}}, BYTES, ["policy"], "policy.share_encoders=true (ac"),
        ({"policy": {"share_encoders": True}}, BYTES, ["camera"], None),
        ({"rollout": {"image_storage": "float16"}}, BYTES, ["camera"],
         "rollout.image_storage=float16 (no group that policy.encoders names is of floats)"),
        ({"rollout": {"image_storage": "float16"}}, FLOATS, ["policy"], None),
        ({"rollout": {"frame_stack": 3}, "policy": {"encoders": {"camera": {}}}}, BYTES, ["policy"],
         "rollout.frame_stack=3 (the actor reads no group that policy.encoders names)"),
        ({"rollout": {"frame_stack": 3}, "policy": {"encoders": {"camera": {}}}}, BYTES, ["camera"],
         None),
        ({}, {}, ["policy"], None),
    ],
)  # fmt: skip
def test_what_is_set_for_pictures_and_changes_none_is_told(
    sections: dict[str, Any], pictures: dict[str, str], actor: list[str], said: str | None
) -> None:
    lines = pictures_in_vain(run_config(**sections), pictures, actor, ["camera", "policy"])
    assert [line.startswith(f"no effect here: {said}") for line in lines] == [True] * bool(said)
