"""What `scripts/isaac_tasks.py` writes of tasks that it has resolved."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "isaac_tasks.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("isaac_tasks_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_heading_for_each_way_and_a_paragraph_for_each_physics(script: ModuleType) -> None:
    rows = [
        ("By its rsl_rl configuration", "Newton", "`Isaac-Ant`†"),
        ("Refused: AMP is not PPO", "Kit", "`Isaac-Dance`"),
        ("By its rsl_rl configuration", "Kit", "`Isaac-Gear`"),
        ("By its skrl configuration", "Newton, `newton_mjwarp`", "`Isaac-Show` (draws)"),
    ]
    page = script.page(rows, "3.0.0", "All are accepted.")
    assert "4 tasks of Isaac Lab 3.0.0" in page and "All are accepted." in page
    words = " ".join(page.split())
    assert "The 1 with a dagger find all their files" in words
    assert "2 have Newton physics, so need no Kit, and 2 of these train by their own" in words
    paragraphs = page.rstrip().split("\n\n")[2:]
    assert paragraphs == [
        "## By its rsl_rl configuration",
        "Newton (1): `Isaac-Ant`†",
        "Kit (1): `Isaac-Gear`",
        "## By its skrl configuration",
        "Newton, `newton_mjwarp` (1): `Isaac-Show` (draws)",
        "## Refused: AMP is not PPO",
        "Kit (1): `Isaac-Dance`",
    ]


def test_assets_are_found_wherever_a_cfg_names_them(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISAACSIM_ASSET_ROOT", "/assets")

    @dataclass
    class Robot:
        path: str
        again: list["Robot"] = field(default_factory=list)

    ant, bar = Robot("/assets/ant.usd"), Robot("https://x/newton-assets/bar.usda")
    ant.again = [ant, Robot("ant"), Robot("/assets/Props/UIElements/arrow_x.usd")]
    cfg = {"robots": (ant, bar), "of": Robot, "count": 3}
    assert script.files_of(cfg) == {"/assets/ant.usd", "https://x/newton-assets/bar.usda"}


def test_refusals_are_named_by_what_is_refused(script: ModuleType) -> None:
    heads = {
        "env.task: its skrl cfg (agent.class=AMP) is not PPO; env.agent=none starts": "AMP is not "
        "PPO",
        "env.task: its rsl_rl cfg (algorithm.class_name=a.b:Mine) is an algorithm of the task's "
        "own: implement": "Mine is an algorithm of the task's own",
        "something else": "something else",
    }
    assert {said: script.refused(said) for said in heads} == {
        said: f"Refused: {head}" for said, head in heads.items()
    }


def test_cfgs_are_counted_by_entry_and_tasks_without_rsl_rl_by_task(script: ModuleType) -> None:
    accepted = {
        ("A", "rsl_rl_cfg_entry_point"): True,
        ("A", "rsl_rl_with_symmetry_cfg_entry_point"): False,
        ("A", "skrl_cfg_entry_point"): False,
        ("B", "rl_games_cfg_entry_point"): False,
        ("B", "skrl_cfg_entry_point"): True,
        ("C", "skrl_cfg_entry_point"): False,
    }
    assert script.count_accepted(accepted) == (
        "Of 2 rsl_rl configurations 1 are accepted, of 2 tasks with only those of skrl or "
        "rl_games, 1."
    )
