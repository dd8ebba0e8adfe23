"""Whole commands on stand-ins of Isaac Lab: training, playing, listing.

Each start of a process costs seconds, so here is one chain of commands a generation, and what only
a whole command shows. What a generation does otherwise is checked in one process each
(test_isaac_contract.py, test_isaac_tasks.py, test_isaac_cfgs.py), bad input is in
test_isaac_bad_input.py, flags are in tests/unit/scripts/test_isaac_flags.py.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from isaac_commands import APPO, SMALL, Done, Stage
from isaac_stage import run_python
from registration import register_package

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.cli.listing import LIST_TASKS

pytestmark = pytest.mark.timeout(900)


def told_to_ray(done: Done) -> Path:
    """The run's directory as Isaac Lab's Ray tuner joins it from the first two lines."""
    first, second, *_ = done.stdout.splitlines()
    directory = first.removeprefix("[INFO] Logging experiment in directory: ")
    name = second.removeprefix("Exact experiment name requested from command line: ")
    assert directory != first and name != second
    return Path(directory) / name


@pytest.mark.parametrize(
    ("generation", "on_close"),
    [("v2", "hang"), ("ga", "raise")],
)
def test_two_workers_train_resume_and_play(
    generation: str, on_close: str, on_stage: Callable[[str], Stage]
) -> None:
    isaac = on_stage(generation)
    done = isaac.train(*SMALL, "env.episode_length_s=0.2", "--run_name", "x y")
    assert done.returncode == 0, done.stderr
    run = isaac.newest_run()
    # Isaac Lab's Ray tuner joins both lines to the run's directory.
    told = told_to_ray(done)
    assert told.name == run.name and not told.is_symlink() and not told.parent.exists()
    assert run.parent.name == "cartpole_direct" and run.name.endswith("_x y")
    first = load_checkpoint(run / "checkpoints" / "model_2.safetensors").meta["config"]
    assert (first["ppo"]["lr"], first["rollout"]["steps_per_env"]) == (3e-4, 8)
    assert first["rollout"]["envs_per_worker"] == 4
    assert "decimation: 2" in (run / "params" / "env.yaml").read_text()
    assert "Base environment" in (run / "workers" / "worker_1.log").read_text()
    bootstraps = "the env's final observation" if generation == "ga" else "V(s_t)"
    assert f"truncated episodes bootstrap from {bootstraps}" in done.stdout
    assert "Parsing configuration" not in done.stdout  # kept for the worker's log
    assert "Parsing configuration" in (run / "workers" / "worker_0.log").read_text()
    assert not (isaac.where / "outputs").exists()
    assert "did not close" not in done.stdout + done.stderr
    # More iterations, not in all; the patterns are those rsl_rl's users know. A close that fails
    # costs nothing and is told.
    patterns = ["--load_run", ".*_x y", "--checkpoint", r"model_.*\.pt"]
    done = isaac.train(*SMALL, "--resume", *patterns, f"env.on_close={on_close}")
    assert done.returncode == 0, done.stderr
    assert "worker 0 did not close its env" in done.stdout + done.stderr
    summary = json.loads((isaac.newest_run() / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["iterations"] == 4
    assert "iteration 4/4" in done.stdout
    assert "the envs' curriculum goes on; all episodes start anew" in done.stdout
    newest = isaac.newest_run() / "checkpoints" / "model_4.safetensors"
    assert newest.exists()
    word = {"v2": "latest", "ga": str(newest)}[generation]
    played = isaac.module(
        *("play", "--checkpoint", word, "--episodes", "3"),
        *("env.episode_length_s=0.1", "env.on_close=return"),
    )
    assert played.returncode == 0, played.stderr
    assert "3 episodes: return " in played.stdout, played.stdout
    assert "length 6.0 +- 0.0" in played.stdout
    if generation == "ga":
        evaluated = run_python(
            ["-m", "isaac_hydra_ext.cli.eval", str(run), "--episodes", "2", "--json"],
            isaac.env, isaac.where,
        )  # fmt: skip
        assert json.loads(evaluated.stdout.splitlines()[-1])["episodes"] == 2
    assert "decimation: 2" in (run / "params" / "env.yaml").read_text()


@pytest.mark.parametrize("generation", ["v2", "ga"])  # with a window of its own, and without
def test_a_play_id_plays_what_its_task_was_trained_to_and_shows_what_is_asked(
    generation: str, on_stage: Callable[[str], Stage]
) -> None:
    isaac, rough = on_stage(generation), "Isaac-Velocity-Rough-Unitree-Go1"
    isaac.env.pop("WAYLAND_DISPLAY", None)
    isaac.env["DISPLAY"] = ""
    done = isaac.train(*SMALL, task=f"{rough}-v0")
    assert done.returncode == 0, done.stderr
    assert "a window opens" not in (isaac.newest_run() / "workers" / "worker_0.log").read_text()
    short = ["--task", f"{rough}-Play-v0", "--episodes", "1", "env.episode_length_s=0.1"]
    ways = [(":9", ["--seed", "-1"], generation == "v2")]
    if generation == "v2":
        ways += [("", ["--seed", "-1"], False), (":9", ["--headless"], False)]
    for display, arguments, window in ways:
        isaac.env["DISPLAY"] = display
        done = isaac.module("play", *short, *arguments)
        assert done.returncode == 0, done.stderr
        (line,) = (x for x in done.stdout.splitlines() if x.startswith("checkpoint: "))
        seed = int(line.rpartition("seed ")[2].rstrip(")"))
        assert seed > 0 if "--seed" in arguments else seed == 0
        assert ("a window opens" in done.stdout) == window
        assert "1 episodes: return " in done.stdout


def test_ray_is_told_before_any_process_is_spawned(
    tmp_path: Path, on_stage: Callable[[str], Stage]
) -> None:
    isaac = on_stage("ga")
    # Imported by every Python of this stage: a spawned one keeps what the terminal shows by then.
    (tmp_path / "isaac_ga" / "sitecustomize.py").write_text(
        "import os, shutil, sys\n"
        "if '--multiprocessing-fork' in sys.argv and os.path.exists('terminal'):\n"
        "    shutil.copy('terminal', 'seen_by_a_worker')\n"
    )
    del isaac.env["PYTHONUNBUFFERED"]
    line = [sys.executable, "-m", f"{APPO}.train", "--task", "Isaac-Cartpole-Direct-v0", *SMALL]
    line += [*isaac.selectors, "--headless", "--device", "cpu", "--ray-proc-id", "77"]
    with open(tmp_path / "terminal", "w") as terminal:
        subprocess.run(line, cwd=tmp_path, env=isaac.env, stdout=terminal, timeout=400, check=True)
    first, second, *others = (tmp_path / "seen_by_a_worker").read_text().splitlines()
    assert first.startswith("[INFO] Logging experiment in directory: ") and not others
    told = Path(first.split(": ")[1]) / second.split(": ")[1]
    assert told.name.endswith("_ray_77"), "and what Ray reads it by stays when the run is over"
    assert told.resolve().parent == tmp_path / "logs/appo/cartpole_direct"
    assert list(told.glob("events.*"))


@pytest.mark.parametrize("generation", ["v2", "ga"])  # with Kit in the learner's process, and not
def test_hydra_alone_trains_in_this_process(
    generation: str, on_stage: Callable[[str], Stage]
) -> None:
    isaac = on_stage(generation)
    selector = [f"env.{s}" for s in isaac.selectors]
    done = isaac.run(
        "env=isaac_go1_flat", *selector, "rollout.num_workers=0", "rollout.device=cpu",
        "rollout.envs_per_worker=4", "experiment.max_iterations=2",
        "++env.cfg.episode_length_s=0.3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = load_checkpoint(isaac.newest_run() / "checkpoints" / "model_2.safetensors").meta
    assert config["config"]["policy"]["hidden_dims"] == [64]  # of the older rsl_rl layout
    assert config["config"]["rollout"]["steps_per_env"] == 24
    assert json.loads((isaac.newest_run() / "summary.json").read_text())["status"] == "completed"


@pytest.mark.release
def test_in_this_process_a_close_that_hangs_is_told(
    on_stage: Callable[[str], Stage],
) -> None:
    done = on_stage("ga").train(
        "--num_envs", "4", "--num_workers", "0", "--max_iterations", "1", "env.on_close=hang"
    )
    assert done.returncode == 0, "as with workers: the run had completed"
    assert "closing the env: not done after 20 s" in done.stderr


@pytest.mark.parametrize("generation", ["v2", "ga"])
def test_all_tasks_are_listed(generation: str, on_stage: Callable[[str], Stage]) -> None:
    isaac = on_stage(generation)
    done = isaac.module("train", "--list_tasks", "--keyword", "pick", "--show_presets")
    assert done.returncode == 0, done.stderr
    version = "" if generation == "ga" else "-v0"
    presets = "" if generation == "v2" else "  physics=isaacsim_physx,newton_kamino,newton_mjwarp"
    assert done.stdout.splitlines() == [
        f"Isaac-Pick-One{version}{presets}", f"Isaac-Pick-Two{version}{presets}",
    ]  # fmt: skip


def test_what_others_register_is_listed_and_the_shipped_task_too(
    on_stage: Callable[[str], Stage],
) -> None:
    isaac = on_stage("v2")  # with Kit
    root = isaac.where / "isaac_v2"
    (root / "my_tasks.py").write_text(
        "import gymnasium as gym\n"
        "def register(name='My'):\n"
        "    gym.register(id=f'{name}-Sber-v0', entry_point='isaaclab.envs:DirectRLEnv',\n"
        "        kwargs={'env_cfg_entry_point': 'isaaclab_tasks.cfgs:CartpoleCfg'})\n"
        "def enter():\n"
        "    register('Installed')\n"
    )
    entries = "[isaac_hydra_ext.tasks]\nbroken = no_such_package\nentered = my_tasks:enter\n"
    register_package(root, "my_pkg", entries)
    shipped = [f"Isaac-Velocity-Sber-Unitree-Go1{v}-v0" for v in ("-Eval", "-Play", "")]
    shipped.insert(0, "Installed-Sber-v0")
    for how in (["--external_callback", "my_tasks.register"], ["env.imports=[my_tasks:register]"]):
        done = isaac.module("train", "--list_tasks", "--keyword", "sber", *how)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [*shipped, "My-Sber-v0"]
    code = LIST_TASKS.format(kind="isaaclab")  # of `appo list tasks`
    listed = run_python(["-c", code], isaac.env, isaac.where)
    assert set(shipped) <= set(json.loads(listed.stdout.splitlines()[-1]))
    done = isaac.train(task="Isaac-Nothing-v0")
    assert done.returncode == 2
    assert (
        "tasks are missing: broken (no_such_package) of isaac_hydra_ext.tasks: Mod" in done.stderr
    )
    # With Kit up, which would not let go: the stand-in's threads do as much.
    (root / "stuck.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait).start()\nimport no_such_package\n"
    )
    done = isaac.module("train", "--list_tasks", "--import", "stuck")
    assert done.returncode == 2
    assert done.stderr.startswith("error: env.imports: cannot import 'stuck'")


def test_without_the_task_that_it_is_made_of_the_shipped_one_says_so(
    on_stage: Callable[[str], Stage],
) -> None:
    isaac = on_stage("ga")
    registrations = isaac.where / "isaac_ga" / "isaaclab_tasks" / "registrations.py"
    text = registrations.read_text()
    registrations.write_text(text.replace("Velocity-Rough-Unitree-Go1", "Velocity-Rough-Other"))
    done = isaac.train(*SMALL, task="Isaac-Velocity-Sber-Unitree-Go1-v0")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith(
        "env.task=Isaac-Velocity-Sber-Unitree-Go1-v0: cannot be had here; this Isaac Lab has no "
        "Isaac-Velocity-Rough-Unitree-Go1-v0 to make it of"
    )


def test_the_resolved_configuration_says_where_each_value_comes_from(
    on_stage: Callable[[str], Stage],
) -> None:
    done = on_stage("ga").train(
        "ppo.lam=0.7", "--cfg", "job", "--resolve", task="Isaac-Recommended-v0"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[::-1]  # a student's lr comes after PPO's
    told = {line.split(":")[0].strip(): line.split("# ")[-1] for line in lines}
    values = {line.split(":")[0].strip(): line for line in lines}
    assert "0.7" in values["lam"] and told["lam"] == "typed"
    assert "0.93" in values["gamma"] and told["gamma"] == "appo_cfg_entry_point"
    assert "0.0003" in values["lr"] and told["lr"] == "the task's agent cfg"
    assert told["rho_bar"] == "default" and told["task"] == "typed"
    assert not (on_stage("ga").where / "logs").exists()


def test_an_external_projects_tasks_work_unchanged(on_stage: Callable[[str], Stage]) -> None:
    isaac = on_stage("ga")
    (isaac.where / "isaac_ga" / "my_tasks.py").write_text(
        "import gymnasium as gym\n"
        "def register():\n"
        "    gym.register(id='My-Task-v0', entry_point='isaaclab.envs:DirectRLEnv',\n"
        "        disable_env_checker=True,\n"
        "        kwargs={'env_cfg_entry_point': 'isaaclab_tasks.cfgs:CartpoleCfg'})\n"
    )
    named = ("--experiment_name", "mine", "--external_callback", "my_tasks.register")
    done = isaac.train(*SMALL, *named, task="My-Task")
    assert done.returncode == 0, done.stderr
    assert "no agent cfg is used" in done.stdout
    assert told_to_ray(done) == isaac.newest_run() and isaac.newest_run().parent.name == "mine"


@pytest.mark.isaaclab
@pytest.mark.timeout(900)
def test_the_real_one_trains_resumes_plays_and_lists(on_stage: Callable[[str], Stage]) -> None:
    isaac = on_stage("real")
    done = isaac.train(*SMALL, "env.episode_length_s=0.5", "--seed", "3")
    assert done.returncode == 0, done.stderr
    run = isaac.newest_run()
    assert told_to_ray(done).name == run.name
    assert "did not close" not in done.stdout + done.stderr
    meta = load_checkpoint(run / "checkpoints" / "model_2.safetensors").meta
    assert meta["config"]["policy"]["hidden_dims"] == [32, 32]
    assert meta["config"]["rollout"]["steps_per_env"] == 16
    # Counted from the env's construction on: two rollouts of 16 steps.
    assert [s["common_step_counter"] for s in meta["env_states"]] == [32, 32]
    done = isaac.train(*SMALL, "--resume", "env.episode_length_s=0.5")
    assert done.returncode == 0, done.stderr
    assert "iteration 4/4" in done.stdout
    meta = load_checkpoint(isaac.newest_run() / "checkpoints" / "model_4.safetensors").meta
    assert [s["common_step_counter"] for s in meta["env_states"]] == [64, 64]
    done = isaac.module("play", "--checkpoint", "latest", "--episodes", "2", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 episodes: return ")
    few = ["--video_length", "4", "env.episode_length_s=0.2", "--num_envs", "2"]
    filmed = isaac.module("play", "--checkpoint", "latest", "--episodes", "1", "--video", *few)
    assert filmed.returncode == 0, filmed.stderr
    clips = list(isaac.where.glob("logs/appo/*/*/videos/*.mp4"))
    assert bool(clips) != ("--video: no videos, " in filmed.stderr), "without libEGL nothing draws"
    for clip in clips:
        frames = importlib.import_module("imageio.v3").imread(clip)
        assert frames.shape == (4, 480, 640, 3)
        assert frames[0, -1].mean() > frames[0, 0].mean() + 20, "no ground below the sky"
    done = isaac.module("train", "--list_tasks", "--keyword", "cartpole-direct")
    assert "Isaac-Cartpole-Direct" in done.stdout.splitlines()
