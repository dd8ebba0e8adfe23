"""A teacher that remembers: from step to step and from rollout to rollout, till episodes end."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.export.export import export
from isaac_hydra_ext.learner.algorithm import make_algorithm
from isaac_hydra_ext.learner.distillation.distillation import Distillation
from isaac_hydra_ext.learner.distillation.teacher import settle_teacher
from isaac_hydra_ext.models.policy import Sequences
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import changed, learner_state
from .test_distillation import B, T, spec_of, student_config, teacher

W = 2


def remembering(where: Path, kind: str = "gru") -> tuple[Distillation, list[Slot]]:
    """A student of such a teacher, and the slots of two collectors."""
    path = teacher(where, recurrent={"kind": kind, "hidden": 4, "layers": 2})
    config = student_config(path)
    config.rollout.num_workers = W
    learner = make_algorithm(config, spec_of(), torch.device("cpu"))
    layout = SlotLayout.of(spec_of(), T, learner.policy)
    return cast("Distillation", learner), [Slot.allocate(layout, "cpu") for _ in range(W)]


def collect(slots: list[Slot], iteration: int) -> None:
    """Rollouts in which no episode ends and nothing has gone wrong."""
    draw = torch.Generator().manual_seed(iteration)
    for slot in slots:
        for name, x in slot._tensors.items():
            if name.startswith("obs/"):
                x.normal_(generator=draw)
            elif not name.startswith("final_"):
                x.zero_()
        slot.header["final_count"] = slot.header["generation"] = 0


def wanted(learner: Distillation) -> torch.Tensor:
    """What the teacher said of the loaded rollouts, [T, N, A]; it then goes on from there."""
    return learner._asked(learner.batch.samples_N).unflatten(0, (T, -1))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_it_says_what_it_would_have_as_the_one_that_acts(tmp_path: Path, kind: str) -> None:
    """Two rollouts are one column of time, with an end within and one between them."""
    learner, slots = remembering(tmp_path, kind)
    found, obs, ended = [], [], []
    for iteration in range(2):
        collect(slots, iteration)
        slots[0].terminated_TB[2, 1] = slots[1].truncated_TB[T - 1, 0] = True
        learner.load(slots)
        found.append(wanted(learner))
        obs.append(learner.batch.obs["full"][:T].clone())
        ended.append((learner.batch.terminated_TN | learner.batch.truncated_TN).clone())
    policy = policy_of(learner)
    starts_TN = torch.cat([torch.zeros_like(ended[0][:1]), *ended])[:-1]
    columns = Sequences(policy.initial_state(W * B), starts_TN)
    params = policy.action_params({"policy": torch.cat(obs).flatten(0, 1)}, columns)
    expected = policy.distribution.mode(params).unflatten(0, (2 * T, W * B))
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-5, atol=1e-6)


def policy_of(learner: Distillation) -> Any:
    """The teacher's networks, which `answer` closes over."""
    cells = cast("Any", learner._teacher.answer).__closure__
    return next(c.cell_contents for c in cells if hasattr(c.cell_contents, "action_params"))


def test_what_began_anew_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    learner, slots = remembering(tmp_path)
    collect(slots, 0)
    slots[0].dropped_B[1] = slots[0].restarted_B[1] = True  # NaN: that env alone begins anew
    learner.load(slots)
    assert wanted(learner).shape[1] == W * B - 1
    (state,) = (x for x in learner._memory.all.values())
    after = state.clone()
    collect(slots, 1)
    slots[1].header["generation"] = 1  # another process has taken that worker's place
    learner.load(slots)
    forgotten = (state == 0).flatten(1).all(1)
    assert forgotten.tolist() == [False, True, False, True, True, True]
    assert torch.equal(state[~forgotten], after[~forgotten])
    wanted(learner)
    collect(slots, 2)
    slots[1].header["generation"] = 1
    learner.load(slots)
    assert not (state == 0).flatten(1).all(1).any()


def test_an_update_learns_from_it_and_a_resumed_run_goes_on_with_it(tmp_path: Path) -> None:
    learner, slots = remembering(tmp_path)
    for iteration in range(2):
        collect(slots, iteration)
        learner.load(slots)
        assert learner.update(iteration)["Loss/behavior"] > 0.0
    other = make_algorithm(learner._config, spec_of(), torch.device("cpu"))
    assert [name for name in learner.state_dict() if name.startswith("teacher.")]
    other.load_state_dict(learner.state_dict())
    collect(slots, 2)
    for each in (learner, other):
        each.load(slots)
        each.update(2)
    assert changed(*(learner_state(cast("Any", x)) for x in (learner, other))) == []


def test_an_exported_one_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = teacher(tmp_path / "run" / "checkpoints", recurrent={"kind": "gru", "hidden": 4})
    files = export(load_checkpoint(path), tmp_path / "files").directory
    with pytest.raises(ConfigError) as refused:
        settle_teacher(student_config(files, distillation={"teacher_groups": None}))
    assert "has a memory; name the run that it was exported from" in str(refused.value)
    assert "\n" not in str(refused.value)
