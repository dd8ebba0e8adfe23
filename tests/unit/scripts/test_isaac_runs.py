"""Which checkpoint Isaac Lab's flags mean, damaged ones among them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint, save_checkpoint
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import CheckpointError
from isaac_hydra_ext.run.totals import RunTotals
from isaac_hydra_ext.scripts.reinforcement_learning.appo.runs import choose_checkpoint
from isaac_hydra_ext.scripts.reinforcement_learning.appo.train import make_parser, overrides_of

from ..builders import env_spec

TASK = "Isaac-Cartpole-Direct-v0"
OLD, NEW = "2026-01-01_00-00-00", "2026-01-02_00-00-00"


def write(root: Path, run: str, iteration: int, mean_return: float, task: str = TASK) -> Path:
    directory = root / "cartpole" / run / "checkpoints"
    directory.mkdir(parents=True, exist_ok=True)
    config = RunConfig()
    config.env.kind, config.env.task = "isaaclab", task
    config.rollout.num_workers, config.rollout.envs_per_worker = 1, 1
    meta: dict[str, Any] = {
        "env_steps": 1,
        "config": config.to_dict(),
        "spec": env_spec().to_json(),
        "episodes": {"finished": [(mean_return, 1)], "total": 1},
        "env_states": None,
        "totals": vars(RunTotals()),
    }
    return save_checkpoint(directory, iteration, {"policy.x": torch.ones(2)}, meta)


def chosen(
    root: Path, checkpoint: str | None = None, task: str | None = TASK, regex: bool = True
) -> tuple[Checkpoint, list[str]]:
    return choose_checkpoint(root, task, None, None, checkpoint, regex)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, OLD, 5, 50.0)
    write(tmp_path, NEW, 50, 30.0)
    write(tmp_path, NEW, 100, 20.0)
    write(tmp_path, "2026-01-03_00-00-00", 7, 70.0, task="Isaac-Ant-v0")
    return tmp_path


def test_of_the_newest_run_of_the_task_the_newest_the_best_or_what_matches(root: Path) -> None:
    for checkpoint, name in ((None, "model_100"), ("latest", "model_100"), ("best", "model_50")):
        found, notes = chosen(root, checkpoint)
        assert (found.path.parent.parent.name, found.path.stem, notes) == (NEW, name, [])
    assert chosen(root, r"model_5.*\.pt")[0].path.stem == "model_50"
    assert chosen(root, task="Isaac-Ant")[0].path.stem == "model_7"


@pytest.mark.parametrize(
    "form",
    ["Isaac-Ant-v0", "Isaac-Ant-Play-v0", "Isaac-Ant-Play", "my_pkg:Isaac-Ant-v0",
     "IsaacContrib-Ant", "Isaac-Ant-v1"],
)  # fmt: skip
def test_every_form_of_a_tasks_id_finds_its_runs(root: Path, form: str) -> None:
    assert chosen(root, task=form)[0].path.stem == "model_7"
    write(root, "2026-01-04_00-00-00", 8, 1.0, task=form)
    assert chosen(root, task="Isaac-Ant-v0")[0].path.stem == "model_8"


def test_a_task_without_runs_is_told_those_that_there_are(root: Path) -> None:
    for regex, flag in ((True, "--resume"), (False, "--checkpoint")):
        with pytest.raises(CheckpointError) as raised:
            chosen(root, task="Isaac-Playground-v0", regex=regex)
        message = str(raised.value)
        assert message.startswith(f"{flag}: no checkpoint under {root}/*, task Isaac-Playground-v0")
        assert message.endswith("; there are runs of Isaac-Ant-v0, Isaac-Cartpole-Direct-v0")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
@pytest.mark.parametrize("checkpoint", [None, "best"])
def test_a_damaged_one_is_told_and_the_same_runs_next_is_taken(
    root: Path, damage: str, checkpoint: str | None
) -> None:
    path = write(root, NEW, 100, 40.0)  # the newest, and now the best
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:100])
    found, notes = chosen(root, checkpoint)
    assert (found.path.parent.parent.name, found.path.stem) == (NEW, "model_50")
    assert len(notes) == 1 and notes[0].startswith("DAMAGED checkpoint passed over")
    with pytest.raises(CheckpointError):
        chosen(root, str(path))


def test_a_run_directory_is_its_newest_sound_checkpoint(root: Path) -> None:
    assert chosen(root, str(root / "cartpole" / OLD))[0].path.stem == "model_5"


def test_with_a_distillation_cfg_the_flags_name_the_teacher_as_in_isaac_labs_script(
    root: Path,
) -> None:
    asked = ["--task", TASK, "--agent", "rsl_rl_distillation_cfg_entry_point", "--load_run", OLD]
    flags, rest = make_parser().parse([*asked, f"experiment.output_dir={root}"])
    tokens = overrides_of(flags, rest)
    teacher = root / "cartpole" / OLD / "checkpoints" / "model_5.safetensors"
    assert f"distillation.teacher={teacher}" in tokens
    assert not [token for token in tokens if token.startswith("resume=")]
    flags, rest = make_parser().parse([*asked, "--resume", f"experiment.output_dir={root}"])
    assert f"resume={teacher}" in overrides_of(flags, rest)
