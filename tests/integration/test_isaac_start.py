"""Starting Isaac Lab, on stand-ins: what its process is given, and what is left where it fails."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from isaac_stage import run_python, stage

from isaac_hydra_ext.config.placement import THREAD_CAPS

pytestmark = pytest.mark.timeout(900)
Done = subprocess.CompletedProcess[str]
TASK = ["--task", "Isaac-Cartpole-Direct-v0", "--num_envs", "8", "--headless"]
WORKERS = ["--num_workers", "2"]


def train(
    generation: str, where: Path, *arguments: str, **variables: str
) -> tuple[Done, list[Path]]:
    """Train; returns how it ended and the files with output that were left."""
    env = {**stage(generation, where), **variables}
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
        ("hang", [*WORKERS, "rollout.startup_timeout_s=18"],
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


# A task that writes down, beside each process, with what it was built.
PROBE = """
import json, multiprocessing, os, sys, time
from pathlib import Path
import gymnasium as gym

def make(cfg, render_mode=None, **_):
    from isaaclab import state
    from isaaclab.envs import DirectRLEnv

    name = multiprocessing.current_process().name
    told = {
        "argv": sys.argv[1:],
        "environ": dict(os.environ),
        "launcher": state.arguments,
        "built": sorted(path.stem for path in Path().glob("*.json")),
    }
    if name == "appo-worker-0":
        time.sleep(2)  # the others would begin now
    env = DirectRLEnv(cfg, render_mode)
    Path(f"{name}.json").write_text(json.dumps(told))
    return env

gym.register(
    id="Probe-v0", entry_point="probe:make", disable_env_checker=True,
    kwargs={"env_cfg_entry_point": "isaaclab_tasks.cfgs:CartpoleCfg"},
)
"""


def probed(generation: str, where: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    """Train the probe; returns what each process has written down, by its name."""
    (where / "probe.py").write_text(PROBE)
    newton = [] if generation == "v2" else ["physics=newton_mjwarp"]
    line = ["--task", "Probe-v0", "--import", "probe", *newton, "--max_iterations", "1"]
    done, _ = train(generation, where, *line, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in where.glob("*.json")}


@pytest.mark.parametrize("generation", ["v2", "ga"])
def test_only_worker_0_shows_and_all_of_them_log(generation: str, tmp_path: Path) -> None:
    shows = ["--livestream", "1"] + ([] if generation == "v2" else ["--viz", "newton,rerun"])
    told = probed(
        generation, tmp_path, *WORKERS, *shows, "--verbose", "--info", "--kit_args", "--/a/b=1"
    )
    first, second = (told[f"appo-worker-{w}"] for w in range(2))
    assert first["launcher"]["livestream"] == 1 and first["launcher"]["enable_cameras"] is True
    assert first["launcher"].get("visualizer") == (None if generation == "v2" else "newton,rerun")
    assert not {"livestream", "visualizer", "enable_cameras"} & set(second["launcher"])
    for worker in (first, second):
        assert worker["argv"] == ["--verbose", "--info"]
        assert worker["launcher"]["kit_args"] == "--/a/b=1"
        assert (worker["launcher"]["headless"], worker["launcher"]["device"]) == (True, "cpu")


def test_worker_0_builds_alone_and_no_worker_of_a_cpu_simulation_has_gpus_or_threads(
    tmp_path: Path,
) -> None:
    told = probed("ga", tmp_path, "--num_workers", "4", CUDA_VISIBLE_DEVICES="0")
    assert len(told) == 4
    assert told["appo-worker-0"]["built"] == []
    assert all("appo-worker-0" in told[f"appo-worker-{w}"]["built"] for w in (1, 2, 3))
    for worker in told.values():
        assert worker["environ"]["CUDA_VISIBLE_DEVICES"] == ""
        for name in THREAD_CAPS:
            assert worker["environ"][name] == os.environ.get(name, "1")


def test_the_learners_process_caps_threads_before_it_simulates_and_keeps_its_gpus(
    tmp_path: Path,
) -> None:
    variables = {"CUDA_VISIBLE_DEVICES": "99", "PXR_WORK_THREAD_LIMIT": "3"}
    told = probed("ga", tmp_path, "--num_workers", "0", **variables)
    (process,) = told.values()
    assert process["environ"]["CUDA_VISIBLE_DEVICES"] == "99"
    assert process["environ"]["PXR_WORK_THREAD_LIMIT"] == "3"  # the user's own
    for name in {*THREAD_CAPS} - {"PXR_WORK_THREAD_LIMIT"}:
        assert process["environ"][name] == os.environ.get(name, "1")
