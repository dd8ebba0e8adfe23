"""`appo check`: each check finds the env that breaks what it is about; a sound one passes all."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from isaac_hydra_ext.cli.main import main
from isaac_hydra_ext.envs.contract import StepResult
from isaac_hydra_ext.evaluation.env_checks import actions, examine, judge, readers, trials_of
from isaac_hydra_ext.evaluation.env_trial import random_actions
from isaac_hydra_ext.terminal.findings import Finding

from ..builders import continuous, discrete, env_spec, run_config
from ..gym_samples import PREFIX, Counter

STEPS = 12
INF = float("inf")


class Sound:
    """Two envs of four steps that keep to the contract; `fault` names how another one does not."""

    def __init__(self, fault: str = "", has_final_obs: bool = True) -> None:
        self.fault, self.calls = fault, 0
        self.spec = env_spec(2, {"policy": ((3,), "float32")}, has_final_obs=has_final_obs)
        self.buffer = torch.zeros(2, 3)

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        self.calls += 1
        drawn = 0 if self.fault == "seedless" else self.calls if self.fault == "random" else seed
        self.generator = torch.Generator().manual_seed(drawn)
        self.clock = 0
        return {"policy": self.draw()}

    def draw(self) -> torch.Tensor:
        if self.fault == "still":
            return torch.ones(2, 3)
        return torch.rand(2, 3, generator=self.generator)

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        self.clock += 1
        ended = torch.full((2,), self.clock % 4 == 0 and self.fault != "endless")
        final = obs = {"policy": self.draw()}
        if ended.any() and self.fault != "no reset":
            obs = {"policy": self.draw()}
        reward = torch.full((2,), {"unpaid": 0.0, "huge": 1e4}.get(self.fault, 1.0))
        if self.fault == "nan reward" and self.clock == 7:
            reward[1] = torch.nan
        if self.fault == "nan at a bound" and (actions_BA.abs() == 1).all():
            obs["policy"][0, 0] = torch.inf
        if self.fault == "two rewards":
            reward = reward[:, None]
        if self.fault == "wider" and self.clock == 5:
            obs = {"policy": torch.zeros(2, 4)}
        if self.fault == "in place":
            obs = {"policy": self.buffer.copy_(obs["policy"])}
        return StepResult(
            obs=obs,
            reward_B=reward,
            terminated_B=torch.zeros(2, dtype=torch.bool),
            truncated_B=ended,
            final_obs=final if ended.any() and self.fault != "no final" else None,
            log={},
        )


def found(env: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(trials_of(env, STEPS))}


def test_a_sound_env_passes_every_check() -> None:
    for env in (Sound(), Sound(has_final_obs=False)):
        assert {finding.status for finding in found(env).values()} == {"ok"}


@pytest.mark.parametrize(
    ("fault", "name", "status", "said"),
    [
        ("two rewards", "steps", "fail", r"reward_B at step 1: expected \(2,\) .*, got \(2, 1\)"),
        ("wider", "steps", "fail", r"step 5: obs group 'policy': expected \[2, 3\]"),
        ("nan reward", "finite", "fail", "reward at step 7"),
        ("nan at a bound", "finite", "fail", "observation policy at step"),
        ("unpaid", "reward", "warn", "0 in every step"),
        ("huge", "reward", "warn", r"mean size 1e\+04"),
        ("endless", "episodes", "warn", "none ended in 12 steps"),
        ("no reset", "autoreset", "fail", "after 6 of 6 ends the observation is still the last"),
        ("no final", "final obs", "fail", "missing at 6 truncations"),
        ("in place", "kept tensors", "fail", "rewritten by the next step: obs policy"),
        ("random", "determinism", "warn", "one seed, twice: observation policy differs at the res"),
        ("seedless", "seeds", "warn", "two seeds begin with the same observations"),
        ("still", "varying", "warn", "never changed: policy"),
    ],
)
def test_each_check_finds_its_fault(fault: str, name: str, status: str, said: str) -> None:
    finding = found(Sound(fault))[name]
    assert finding.status == status and finding.fix
    assert re.search(said, finding.found), finding.found


def test_what_the_spec_alone_says() -> None:
    spec = env_spec(
        2, {"policy": ((3,), "float32"), "camera": ((8,), "uint8")}, continuous((-1, 1))
    )
    assert actions(spec).status == actions(replace(spec, action=discrete(3))).status == "ok"
    for bounds, status in (((1.0, -1.0), "fail"), ((0.0, INF), "warn"), ((-INF, INF), "ok")):
        assert actions(replace(spec, action=continuous(bounds))).status == status
    unread = readers(run_config(), spec)
    assert unread.status == "warn" and "nobody camera" in unread.found
    groups = {"actor": ["policy"], "critic": ["goal"]}
    missing = readers(run_config(policy={"obs_groups": groups}), spec)
    assert missing.status == "fail" and "goal" in missing.found


def test_actions_lie_within_the_bounds_and_at_them() -> None:
    generator = torch.Generator().manual_seed(0)
    spec = continuous((-2.0, 1.0), (-INF, INF), (0.0, INF))
    drawn = torch.cat([random_actions(spec, 50, generator, step) for step in range(4)])
    assert drawn[:, 0].min() == -2.0 and drawn[:, 0].max() == 1.0 and drawn[:, 2].min() == 0.0
    assert drawn[:, 0].unique().numel() > 50 and drawn.isfinite().all()
    choices = random_actions(discrete(2, 3), 100, generator, 0)
    assert choices.shape == (100, 2) and choices.amax(0).tolist() == [1, 2]


# ------------------------------------------------------------------ Gymnasium's, and the command


class Outside(Counter):
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Broken(Counter):
    def step(self, action: Any) -> Any:
        return [][self.clock]


for name, entry in (("Outside", Outside), ("Broken", Broken)):
    gym.register(f"{PREFIX}{name}-v0", entry, max_episode_steps=4)


def test_gymnasiums_own_checker_is_asked() -> None:
    for env_id, status in ((f"{PREFIX}Outside-v0", "fail"), ("CartPole-v1", "ok")):
        last = list(examine(run_config(env={"id": env_id}), 8))[-1]
        assert (last.name, last.status) == ("gymnasium", status), last
        assert status == "ok" or "not within the observation space" in last.found


@pytest.fixture
def checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["appo", "check", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    yield run
    assert not list(tmp_path.iterdir()), "a check leaves nothing"


def test_the_command_ends_with_1_where_a_check_fails(checked: Any) -> None:
    code, out, _ = checked("Pendulum-v1", "--steps=210", "--json")
    answer = json.loads(out)
    assert (code, answer["status"]) == (0, "ok"), out
    assert {"build", "observations", "who reads what", "gymnasium"} <= {
        check["name"] for check in answer["checks"]
    }
    code, out, _ = checked("env=gym_any", f"env.id={PREFIX}Outside-v0", "--steps=8")
    assert code == 1 and "\nfail  gymnasium" in out and out.splitlines()[-1].endswith("1 fail")


def test_an_exception_of_the_env_shows_its_traceback(checked: Any) -> None:
    code, out, err = checked(f"{PREFIX}Broken-v0")
    assert code == 1 and "return [][self.clock]" in err
    assert "fail  exception      IndexError: list index out of range" in out
    assert "ok    build" in out, "and what was found before"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Pendulun-v1",), "did you mean 'Pendulum-v1'"),
        (("Pendulum-v1", "env.kwargs.g=x"), "env.kwargs"),
        (("env=gym_pendulumm",), "did you mean"),
        (("Pendulum-v1", "--steps=0"), "--steps 0: must be at least 1"),
        ((), "required: ENV"),
    ],
)
def test_bad_words_are_one_line(checked: Any, words: tuple[str, ...], said: str) -> None:
    code, out, err = checked(*words)
    assert code in (1, 2) and said in out + err
