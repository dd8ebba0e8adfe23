"""The environment contract on Isaac Lab: stand-ins of every generation, and a real one.

There is one simulation a process, so every generation gets one: this file, run as a script, makes
all checks on one env and says what each found.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from isaac_stage import REAL, physics, read_report, report, run_python, stage

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import StepResult
from isaac_hydra_ext.envs.isaac import ids as isaac_ids
from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv, describe
from isaac_hydra_ext.errors import ConfigError, EnvNotFoundError

pytestmark = pytest.mark.timeout(600)
B, LIMIT = 4, 5  # envs, and steps until truncation: 0.08 s at 60 Hz
CHECKS: dict[str, Callable[[IsaacLabVecEnv], None]] = {}


def check(function: Callable[[IsaacLabVecEnv], None]) -> Callable[[IsaacLabVecEnv], None]:
    """Have `function` run on each generation's env; an AssertionError is what it found."""
    CHECKS[function.__name__] = function
    return function


def idle(env: IsaacLabVecEnv) -> torch.Tensor:
    return torch.zeros(B, env.spec.action.dim)


def steps(env: IsaacLabVecEnv, count: int) -> list[StepResult]:
    return [env.step(idle(env)) for _ in range(count)]


@check
def the_spec_is_one_envs_and_fits_the_tensors(env: IsaacLabVecEnv) -> None:
    spec, obs = env.spec, env.reset(1)
    assert spec.num_envs == B and spec.max_episode_length == LIMIT
    assert abs(spec.step_dt - 1 / 60) < 1e-9
    assert spec.action.kind == "continuous" and spec.action.dim == 1
    assert spec.action.low == (-float("inf"),)  # unbounded
    assert {k: (B, *v.shape) for k, v in spec.obs.items()} == {
        k: tuple(v.shape) for k, v in obs.items()
    }
    assert not spec.finite_horizon and spec.has_state and not spec.whole_state
    result = env.step(idle(env))
    assert result.reward_B.dtype == torch.float32 and result.reward_B.shape == (B,)
    for flags_B in (result.terminated_B, result.truncated_B):
        assert flags_B.dtype == torch.bool and flags_B.shape == (B,)


@check
def what_a_step_returns_is_the_callers_to_keep(env: IsaacLabVecEnv) -> None:
    first_obs = env.reset(1)
    kept = {k: v.clone() for k, v in first_obs.items()}
    results, copies = [], []
    for result in steps(env, 2 * LIMIT):
        tensors = (result.reward_B, result.terminated_B, result.truncated_B, *result.obs.values())
        results.append(tensors)
        copies.append([t.clone() for t in tensors])
    for tensors, clones in zip(results, copies, strict=True):
        assert all(t.equal(c) for t, c in zip(tensors, clones, strict=True))
    assert all(first_obs[k].equal(v) for k, v in kept.items())


@check
def an_ended_episode_gives_the_next_ones_first_observation(env: IsaacLabVecEnv) -> None:
    env.reset(1)
    results = steps(env, LIMIT)
    ends = [t for t, r in enumerate(results) if (r.truncated_B | r.terminated_B).any()]
    # Some Direct tasks, Cartpole among them, end one step before their limit.
    assert ends in ([LIMIT - 1], [LIMIT - 2])
    assert results[ends[0]].truncated_B.all() and not results[ends[0]].terminated_B.any()
    assert (env._core.episode_length_buf == LIMIT - 1 - ends[0]).all()


@check
def the_log_comes_with_resets_only(env: IsaacLabVecEnv) -> None:
    env.reset(1)
    results = steps(env, 2 * LIMIT)
    for result in results:
        ended = bool((result.truncated_B | result.terminated_B).any())
        assert bool(result.log) == ended
        assert all(isinstance(v, float) and "/" in k for k, v in result.log.items())


@check
def final_observations_come_where_they_exist_and_only_with_truncations(
    env: IsaacLabVecEnv,
) -> None:
    assert env.spec.has_final_obs == hasattr(env._core.cfg, "compute_final_obs")
    env.reset(1)
    for result in steps(env, 2 * LIMIT):
        due = env.spec.has_final_obs and bool(result.truncated_B.any())
        assert (result.final_obs is not None) == due
        if result.final_obs is not None:
            assert result.final_obs.keys() == env.spec.obs.keys()


@check
def the_same_seed_starts_the_same_episodes(env: IsaacLabVecEnv) -> None:
    first, other, again = env.reset(2**40 + 7), env.reset(8), env.reset(2**40 + 7)
    for group, tensor in first.items():
        assert tensor.equal(again[group]) and not tensor.equal(other[group])


@check
def random_episode_times_spread_the_first_ends(env: IsaacLabVecEnv) -> None:
    env.reset(1)
    assert env.randomize_episode_time(torch.Generator().manual_seed(3))
    ends = torch.stack([r.truncated_B for r in steps(env, LIMIT)])
    assert int(ends.any(dim=1).sum()) > 1


@check
def overrides_have_arrived_and_no_other_argument_is_left(env: IsaacLabVecEnv) -> None:
    cfg = env._core.cfg
    assert cfg.episode_length_s == 0.08 and cfg.scene.num_envs == B
    assert cfg.sim.device == "cpu" and cfg.seed == 11
    assert len(sys.argv) == 1
    # Kit sets handlers of its own; ours before it was Python's, or none in a background job.
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)
    assert not Path("outputs").exists()


@check
def the_cfg_and_the_log_directory_are_the_runs(env: IsaacLabVecEnv) -> None:
    assert env._core.cfg.log_dir == str(Path("run").absolute())
    assert "decimation: 2" in Path("run/params/env.yaml").read_text()


@check
def the_step_counter_can_be_put_back(env: IsaacLabVecEnv) -> None:
    state = json.loads(json.dumps(env.state_dict()))
    steps(env, 3)
    env.load_state_dict({**state, "common_step_counter": 1000})
    steps(env, 1)
    assert env.state_dict() == {**state, "common_step_counter": 1001}


@check
def both_forms_of_a_task_id_are_found_and_near_names_told(env: IsaacLabVecEnv) -> None:
    del env
    with_version = isaac_ids.find_task("Isaac-Cartpole-Direct-v0")
    assert isaac_ids.find_task("Isaac-Cartpole-Direct") == with_version
    with pytest.raises(EnvNotFoundError, match=r"^env\.task=Isaac-Cartpol-Direct.*did you mean"):
        isaac_ids.find_task("Isaac-Cartpol-Direct-v0")
    with pytest.raises(EnvNotFoundError, match="--list_tasks shows all"):
        isaac_ids.find_task("Isaac-Nothing-Like-It")


@check
def what_the_task_does_not_have_is_refused_in_one_line(env: IsaacLabVecEnv) -> None:
    del env
    for changed, says in (
        ({"cfg": {"decimatoin": 4}}, r"^env\.cfg\.decimatoin: .*did you mean 'decimation'"),
        ({"cfg": {"episode_length_s": "abc"}}, r"^env\.cfg\.episode_length_s=abc: .*float"),
        ({"cfg": {"scene": {"num_envs": 2.5}}}, r"^env\.cfg\.scene\.num_envs=2\.5: .*int"),
        ({"cfg": {"scene": 3}}, r"^env\.cfg\.scene=3: a group of settings"),
        ({"physics": "newton_mjwrap"}, r"^env\.physics=newton_mjwrap: .*no such preset"),
        ({"agent": "rsl_rl_cfg_entry"}, r"^env\.agent=rsl_rl_cfg_entry: .*did you mean"),
        ({"task": "Isaac-Cartpol-Direct-v0"}, r"did you mean 'Isaac-Cartpole-Direct"),
    ):
        with pytest.raises(ConfigError, match=says) as raised:
            describe(env_config(**changed), "cpu")
        assert "\n" not in str(raised.value)


@check
def the_tasks_rsl_rl_cfg_is_described(env: IsaacLabVecEnv) -> None:
    del env
    task = describe(env_config(), "cpu")
    assert task.settings["experiment"]["name"] == "cartpole_direct"
    assert task.settings["policy"]["hidden_dims"] == [32, 32]
    assert task.settings["policy"]["obs_groups"] is None  # by name, once the groups are known
    assert task.settings["rollout"]["device"] == "cpu"
    assert task.default_num_envs == 4096
    assert json.loads(json.dumps(task.env_config))["task"].startswith("Isaac-Cartpole-Direct")
    none = describe(env_config(agent="none"), "cpu")
    assert none.settings == {"rollout": {"device": "cpu"}} and len(none.notes) == 1


@check
def a_gpu_simulation_without_a_gpu_is_refused(env: IsaacLabVecEnv) -> None:
    del env
    if torch.cuda.device_count() == 0:
        with pytest.raises(ConfigError, match=r"^rollout\.device=cuda:0: .*--device cpu"):
            describe(env_config(), "auto")


def env_config(**changed: object) -> EnvConfig:
    """The task as the checks want it; `PHYSICS` says which preset, if there are any."""
    values = {"physics": os.environ.get("PHYSICS") or None, "cfg": {"episode_length_s": 0.08}}
    config = EnvConfig(kind="isaaclab", task="Isaac-Cartpole-Direct-v0")
    for name, value in {**values, **changed}.items():
        setattr(config, name, value)
    return config


def main() -> None:
    """Run every check in this process and print what they found as a last line of JSON."""
    Path("run/workers").mkdir(parents=True)
    run_dir = Path("run").absolute()
    # Foreign arguments: what a spawned child inherits.
    sys.argv = [sys.argv[0], "env=isaac_any", "--multirun"]
    env = IsaacLabVecEnv(env_config(), B, "cpu", seed=11, worker=0, run_dir=run_dir)
    report({name: partial(function, env) for name, function in CHECKS.items()}, __file__)


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    where = tmp_path_factory.mktemp(request.param)
    env = {**stage(request.param, where), "PHYSICS": physics(request.param) or ""}
    done = run_python([__file__], env, where, timeout=500)
    return read_report(done)


@pytest.mark.parametrize("findings", ["v2", "ga", REAL], indirect=True, scope="module")
@pytest.mark.parametrize("name", list(CHECKS))
def test_contract(findings: dict, name: str) -> None:
    assert findings[name] == ""


if __name__ == "__main__":
    main()
