"""The evaluator in its own process: what it plays, and what can happen to it."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from staged_env import MARK, STEPS

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.evaluation.evaluator import MAX_RESTARTS, Evaluation, Evaluator
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.workers import restarts
from isaac_hydra_ext.workers.handle import Phase

SPEC = EnvSpec(
    num_envs=2,
    obs={"policy": TensorSpec((2,), "float32")},
    action=ActionSpec("continuous", 1, (-1.0,), (1.0,)),
    step_dt=0.0,
    max_episode_length=0,
    has_final_obs=True,
)


class Stage:
    """An evaluator of a staged env, and what it has said."""

    def __init__(self, where: Path, **sections: dict[str, Any]) -> None:
        self.where, self.said = where, list[str]()
        env = {"id": "Staged-v0", "imports": ["staged_env"], "kwargs": {"stage": str(where)}}
        evaluate = {"num_episodes": 6, "num_envs": 4, "environment": MARK}
        base: dict[str, Any] = {
            "experiment": {"output_dir": str(where), "device": "cpu"},
            "env": env,
            "rollout": {"num_workers": 1, "envs_per_worker": 2},
            "policy": {"hidden_dims": [4], "normalize_obs": False},
            "evaluate": evaluate,
        }
        for section, values in sections.items():
            base[section] = {**base.get(section, {}), **values}
        self.config: RunConfig = load_run_config(base)
        complete(self.config, 2, [])
        self.evaluator = Evaluator(
            self.config, where, SPEC, self.flat(0.0).numel(), self.said.append
        )

    def flat(self, action: float) -> torch.Tensor:
        """Weights of a policy whose mean action is `action`, whatever it sees."""
        policy = ActorCritic(self.config.policy, SPEC, 0, torch.device("cpu"))
        policy.flat.zero_()
        list(policy.actor.parameters())[-1].data.fill_(action)  # the last bias
        return policy.flat

    def ask(self, iteration: int, action: float = 0.5, video: bool = False) -> torch.Tensor:
        flat = self.flat(action)
        self.evaluator.ask(iteration, flat, video)
        return flat

    def until(self, true: Callable[[], bool]) -> list[Evaluation]:
        """Poll until something is true; returns what has come."""
        found, deadline = [], time.monotonic() + 120
        while not true():
            assert time.monotonic() < deadline, self.said
            evaluation = self.evaluator.poll(0.1)
            found += [] if evaluation is None else [evaluation]
        return found

    def result(self) -> Evaluation:
        (found,) = self.until(lambda: self.evaluator.pending is None)
        return found

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.evaluator._handle.process.pid)

    def set(self, what: str) -> None:
        (self.where / what).touch()

    def clear(self, what: str) -> None:
        (self.where / what).unlink()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Make stages; afterwards no process and no descriptor of theirs is left."""
    descriptors, stages = len(os.listdir("/proc/self/fd")), []

    def make(*present: str, **sections: dict[str, Any]) -> Stage:
        for what in present:
            (tmp_path / what).touch()
        stages.append(Stage(tmp_path, **sections))
        return stages[-1]

    yield make
    while stages:
        stages.pop().evaluator.close(lambda: False)
    gc.collect()  # a mapping and a process each keep a descriptor
    assert [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())] == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # the resource tracker's


def test_it_plays_exactly_the_weights_it_was_given(stage: Callable[..., Stage]) -> None:
    run = stage()
    flat = run.ask(3, action=0.5)
    flat.fill_(9.0)  # the learner goes on
    first = run.result()
    run.ask(7, action=-0.25)
    second = run.result()
    assert (first.iteration, second.iteration) == (3, 7)
    expected = {"episodes": 6, "std_return": 0.0, "mean_length": STEPS, "std_length": 0.0}
    for found, mean in ((first, 0.5), (second, -0.25)):
        assert found.result.pop("seconds") >= 0.0
        assert found.result == {**expected, "mean_return": STEPS * mean}
        assert found.video is None
    assert run.said == []


def test_asking_and_listening_wait_for_nothing(stage: Callable[..., Stage]) -> None:
    run = stage("hold")
    run.ask(1)
    run.until(lambda: run.evaluator._handle.deadline < float("inf"))
    for _ in range(100):
        assert run.evaluator.poll() is None
        assert run.evaluator.pending == 1
    run.clear("hold")
    assert run.result().iteration == 1


def test_a_killed_one_is_replaced_and_goes_on(stage: Callable[..., Stage]) -> None:
    run = stage("hold")
    run.ask(1)
    run.process.kill()
    assert run.until(lambda: run.evaluator.pending is None) == []
    assert run.said == [
        "the evaluator was killed by SIGKILL (iteration 1 is not evaluated); "
        f"replaced (1 of at most {MAX_RESTARTS} per hour)"
    ]
    run.clear("hold")
    run.ask(2)
    assert run.result().result["mean_return"] == STEPS * 0.5


def test_one_that_always_dies_is_given_up(stage: Callable[..., Stage]) -> None:
    run = stage("die")
    for iteration in range(1, MAX_RESTARTS + 2):
        run.ask(iteration)
        run.until(lambda: run.evaluator.pending is None)
    assert not run.evaluator.alive and run.evaluator.poll() is None
    assert len(run.said) == MAX_RESTARTS + 1
    assert run.said[-1] == (
        "the evaluator was killed by SIGKILL, after 3 replacements within an hour (iteration 4 is "
        "not evaluated); given up, the training goes on without"
    )


def test_replacements_of_an_hour_ago_do_not_count(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stage("die")
    for iteration in range(1, MAX_RESTARTS + 1):
        run.ask(iteration)
        run.until(lambda: run.evaluator.pending is None)
    monkeypatch.setattr(restarts, "HOUR_S", 0.0)
    run.ask(9)
    run.until(lambda: run.evaluator.pending is None)
    assert run.evaluator.alive and run.said[-1].endswith("replaced (1 of at most 3 per hour)")


def test_a_pause_of_the_learner_too_is_none_of_its_time(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stage("hold")
    run.ask(1)
    run.until(lambda: run.evaluator._handle.phase is Phase.COLLECTING)
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 10 * 3600)  # as after `docker pause`
    run.evaluator.poll()
    assert run.evaluator.pending == 1 and run.said == []
    run.clear("hold")
    assert run.result().iteration == 1


def test_an_error_is_told_in_one_line(stage: Callable[..., Stage]) -> None:
    run = stage("raise")
    run.ask(1)
    run.until(lambda: run.evaluator.pending is None)
    (line,) = run.said
    assert "\n" not in line and line.startswith(
        "the evaluator raised in evaluate, env Staged-v0: RuntimeError: fell over (iteration 1"
    )
    assert "Traceback" in (run.where / "workers" / "evaluator.log").read_text()
    run.clear("raise")
    run.ask(2)
    assert run.result().iteration == 2


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no_build", "raised in build, env Staged-v0: RuntimeError: no scene"),
        ("wide", "of another environment: obs is"),
    ],
)
def test_an_env_that_cannot_be_built_is_not_tried_again(
    stage: Callable[..., Stage], what: str, says: str
) -> None:
    run = stage(what)
    run.ask(1)
    run.until(lambda: not run.evaluator.alive)
    (line,) = run.said
    assert says in line and line.endswith("given up, the training goes on without")


def test_one_that_takes_too_long_is_killed(stage: Callable[..., Stage]) -> None:
    run = stage("hold", evaluate={"timeout_s": 0.5})
    run.ask(1)
    run.until(lambda: run.evaluator.pending is None)
    (line,) = run.said
    assert "took longer than evaluate.timeout_s allows and was killed (iteration 1" in line


def test_closing_a_busy_one_kills_it_and_an_idle_one_closes_its_env(
    stage: Callable[..., Stage],
) -> None:
    run = stage("hold")
    run.ask(1)
    process = run.process
    run.evaluator.close(lambda: False)
    assert not process.is_running()


def test_its_environment_is_its_own(stage: Callable[..., Stage]) -> None:
    before = dict(os.environ)
    run = stage(evaluate={"cuda_visible_devices": "7", "environment": {**MARK, "DISPLAY": ":9"}})
    run.ask(1)
    run.result()
    theirs = run.process.environ()
    assert (theirs["CUDA_VISIBLE_DEVICES"], theirs["DISPLAY"]) == ("7", ":9")
    assert theirs["OMP_NUM_THREADS"] == before.get("OMP_NUM_THREADS", "1")
    assert dict(os.environ) == before
    assert run.process.nice() > psutil.Process().nice(), "the workers come first"


def test_a_video_where_the_env_can_be_drawn(stage: Callable[..., Stage]) -> None:
    iio = pytest.importorskip("imageio.v3", reason="pip install 'isaac-hydra-ext[video]'")
    run = stage(logging={"video": {"every": 1, "length": 3}})
    run.ask(1, video=False)
    assert run.result().video is None
    run.ask(2, video=True)
    found = run.result()
    assert (found.video, found.result["mean_return"]) == ("eval_2.mp4", STEPS * 0.5)
    frames = iio.imread(run.where / "videos" / "eval_2.mp4")
    assert frames.shape == (4, 32, 48, 3)
    assert frames.mean((1, 2, 3)) == pytest.approx([0, 40, 80, 120], abs=4)
    assert run.said == []


def test_an_env_that_cannot_be_drawn_is_evaluated_all_the_same(
    stage: Callable[..., Stage],
) -> None:
    run = stage("blind", logging={"video": {"every": 1}})
    for iteration in (1, 2):
        run.ask(iteration, video=True)
        assert run.result().video is None
    (line,) = run.said
    assert line == (
        "no videos: the env cannot be drawn: RuntimeError: no display; the training goes on without"
    )


def test_an_env_that_goes_blind_costs_its_videos_only(stage: Callable[..., Stage]) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="pip install 'isaac-hydra-ext[video]'")
    run = stage(logging={"video": {"every": 1}})
    run.ask(1)
    run.result()
    run.set("blind")
    run.ask(2, video=True)
    found = run.result()
    assert (found.video, found.result["mean_return"]) == (None, STEPS * 0.5)
    assert len(run.said) == 1 and "no display" in run.said[0]
    assert list((run.where / "videos").iterdir()) == []
