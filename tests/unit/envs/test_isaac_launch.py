"""How Isaac Lab is started, as far as that needs none."""

import sys
from pathlib import Path

import pytest

from isaac_hydra_ext.envs.isaac.generation import detect_generation
from isaac_hydra_ext.envs.isaac.launch import explained, launcher_arguments
from isaac_hydra_ext.errors import EnvError, MissingDependencyError


@pytest.mark.parametrize(
    ("visible", "device", "told"),
    [
        ("2", "cuda:0", "--/renderer/activeGpu=2"),
        ("1,3", "cuda:1", "--/renderer/activeGpu=3"),
        ("3", "auto", "--/renderer/activeGpu=3"),
        ("0,1", "cuda:1", None),  # as Isaac Lab says itself
        ("2", "cpu", None),
        ("2", "", None),  # 3.0 finds it
        ("", "cuda:0", None),
        ("GPU-8f3e", "cuda:0", None),
    ],
)
def test_kit_draws_on_the_gpu_that_cuda_was_given(
    visible: str, device: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launcher_arguments({}, 1, device).get("kit_args") == told
    asked = {"kit_args": "--/app/x=1"}
    assert launcher_arguments(asked, 1, device)["kit_args"] == " ".join(filter(None, [
        "--/app/x=1", told,
    ]))  # fmt: skip
    asked = {"kit_args": "--/renderer/activeGpu=7"}
    assert launcher_arguments(asked, 1, device) == asked


def test_an_animation_is_recorded_for_as_long_as_isaac_lab_would() -> None:
    told = launcher_arguments({"anim_recording_enabled": True}, 0, "cpu")
    assert (told["anim_recording_start_time"], told["anim_recording_stop_time"]) == (0.0, 10.0)
    asked = {"anim_recording_enabled": True, "anim_recording_stop_time": 3.0}
    assert launcher_arguments(asked, 0, "cpu")["anim_recording_stop_time"] == 3.0


def test_a_missing_file_before_kit_runs_is_no_asset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "isaaclab.utils.assets", raising=False)
    with (
        pytest.raises(EnvError, match=r"^AppLauncher: Invalid value for .experience.: x\.kit\.$"),
        explained("AppLauncher"),
    ):
        raise FileNotFoundError("Invalid value for `experience`: x.kit.\n No such file")


def test_a_missing_file_of_newtons_is_not_looked_for_in_the_asset_root() -> None:
    with (
        pytest.raises(EnvError, match="NEWTON_ASSET_DIR names a checkout of newton-assets"),
        explained("env.task=Isaac-Fourbar-Pole-Swingup"),
    ):
        raise FileNotFoundError("Unable to find the file: https://x/newton-assets/main/bar.usda")


def test_pypis_package_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "isaaclab" / "source" / "isaaclab_tasks").mkdir(parents=True)
    (tmp_path / "isaaclab" / "__init__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "isaaclab", raising=False)
    with pytest.raises(MissingDependencyError, match="PyPI's package, .* a checkout of Isaac Lab"):
        detect_generation()
