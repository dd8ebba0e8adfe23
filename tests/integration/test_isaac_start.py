"""Starting Isaac Lab, on stand-ins: what its process is given, and what is left where it fails."""

import subprocess
from pathlib import Path

import pytest
from isaac_stage import run_python, stage

pytestmark = pytest.mark.timeout(300)
Done = subprocess.CompletedProcess[str]
TASK = ["--task", "Isaac-Cartpole-Direct-v0", "--num_envs", "8", "--headless"]
WORKERS = ["--num_workers", "2"]


def train(
    generation: str, where: Path, *arguments: str, **variables: str
) -> tuple[Done, list[Path]]:
    """Train; returns how it ended and the files with output that were left."""
    env = {**stage(generation, where), "TMPDIR": str(where), **variables}
    module = "isaac_hydra_ext.scripts.reinforcement_learning.appo.train"
    done = run_python(["-m", module, *TASK, "--device", "cpu", *arguments], env, where)
    return done, list(where.glob("isaac_lab_*.log"))


@pytest.mark.parametrize(
    ("how", "arguments", "says"),
    [
        ("raise", WORKERS, "worker 0, describe, env Isaac-Cartpole-Direct-v0: starting Isaac Lab: "
         "RuntimeError: no driver; its output is in "),
        ("raise", ["--num_workers", "0"], "error: starting Isaac Lab: RuntimeError: no driver; "),
        ("raise", ["--list_tasks"], "error: starting Isaac Lab: RuntimeError: no driver; "),
        ("exit", WORKERS, "exited with code 0 (last told: starts Isaac Sim, output in "),
        ("hang", [*WORKERS, "rollout.startup_timeout_s=20"],
         "if it needs longer (last told: starts Isaac Sim, output in "),
    ],
)  # fmt: skip
def test_what_kit_said_where_it_did_not_start_is_kept_and_named(
    how: str, arguments: list[str], says: str, tmp_path: Path
) -> None:
    done, files = train("v2", tmp_path, *arguments, KIT_START=how)
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    (kept,) = files
    assert says in line and str(kept) in line
    assert "a hundred lines of start-up output" in kept.read_text()
    assert ("RuntimeError: no driver" in kept.read_text()) == (how == "raise")


def test_what_isaac_lab_said_before_it_gave_up_is_kept_and_named(tmp_path: Path) -> None:
    done, files = train("ga", tmp_path, *WORKERS, "--task", "Isaac-Kit-Only")
    (line,) = done.stderr.strip().splitlines()
    (kept,) = files
    assert line.endswith(f"has no other physics preset; its output is in {kept}")
    assert "[ERROR] Isaac Sim is not installed" in kept.read_text()


def test_nothing_is_left_where_the_line_says_everything_or_nothing_failed(tmp_path: Path) -> None:
    newton = "physics=newton_mjwarp"
    done, files = train("ga", tmp_path, *WORKERS, newton, "env.decimatoin=4")
    assert done.returncode == 2 and files == []
    done, files = train("ga", tmp_path, *WORKERS, newton, "--max_iterations", "1")
    assert done.returncode == 0 and files == [], done.stderr
