"""How well a policy walks to its targets, level by level.

    python -m isaac_hydra_ext.tasks.go1_nav.evaluate POLICY [--levels 0 5 9] [--episodes 256]

POLICY is a run directory, a checkpoint file, `latest` or `best`, or a directory that `appo export`
has written. Runs in one process of its own: one env holds all levels side by side, each env plays
its share of the episodes, and actions are deterministic. Nothing is learned, no noise is added,
nobody pushes.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isaac_hydra_ext.checkpoints.exported import OnnxPolicy
from isaac_hydra_ext.checkpoints.saved_policy import config_of, load_weights
from isaac_hydra_ext.cli.main import end_process, run_reporting_errors
from isaac_hydra_ext.cli.named_checkpoint import find, say_found
from isaac_hydra_ext.config.renamed import with_new_names
from isaac_hydra_ext.config.schema import EnvConfig, RolloutConfig, RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, VecEnv
from isaac_hydra_ext.envs.registry import facts_of, make_env
from isaac_hydra_ext.errors import ConfigError, EnvError, MissingDependencyError
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.tasks.go1_nav.navigation import NUM_LEVELS, OUTCOME

ISAAC_TASK = "Isaac-Velocity-Sber-Unitree-Go1-Eval-v0"
Act = Callable[[dict[str, torch.Tensor]], torch.Tensor]


def evaluate(
    policy: str,
    levels: Sequence[int],
    episodes: int,
    num_envs: int | None = None,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Play whole episodes on each level.

    Args:
        policy: What the command line calls POLICY.
        levels: Of the terrain, each in 0-9.
        episodes: On each level.
        num_envs: Side by side on each level; None: as many as episodes.
        device: Of the simulation and the policy: auto, cpu or cuda:N.
        seed: Of the terrain and the episodes.

    Returns:
        policy, iteration, stack, seed, and under `levels` what `summarize` says of each.

    Raises:
        ConfigError: A level that there is not, no episodes, or a policy of another task.
        CheckpointError, ExportError: No policy is there, or it does not load.
    """
    if episodes < 1 or not levels or not set(levels) <= set(range(NUM_LEVELS)):
        raise ConfigError(
            f"--levels {' '.join(map(str, levels))} --episodes {episodes}: levels are 0 to "
            f"{NUM_LEVELS - 1}, and at least 1 episode is played on each"
        )
    config, iteration, make_act = _load(policy)
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    per_level = min(episodes, num_envs or episodes)
    _hold_levels(config.env, levels)
    config.rollout.envs_per_worker, config.rollout.device = per_level * len(levels), device
    env = make_env(config, seed)
    try:
        played = _play(env, make_act(env.spec, device), len(levels), episodes, seed)
    finally:
        env.close()
    return {
        "policy": policy,
        "iteration": iteration,
        "stack": facts_of(config.env).package,
        "seed": seed,
        "levels": {
            str(level): summarize(np.array(outcomes))
            for level, outcomes in zip(levels, played, strict=True)
        },
    }


def summarize(outcome_EK: np.ndarray) -> dict[str, float | None]:
    """Summarise E episodes' `OUTCOME`.

    Returns:
        episodes; success: the share that reached the first target before any fall; falls: the
        share that ended in one; path_over_straight: how far the robot walked to the first target,
        over the straight line from its start to where it arrived, the mean of those that did (None
        if none did).
    """
    reached, fell, path, straight = (outcome_EK[:, OUTCOME.index(name)] for name in OUTCOME)
    ratios = path[reached > 0] / straight[reached > 0]
    return {
        "episodes": len(outcome_EK),
        "success": float(reached.mean()),
        "falls": float(fell.mean()),
        "path_over_straight": float(ratios.mean()) if len(ratios) else None,
    }


def _load(policy: str) -> tuple[RunConfig, int, Callable[[EnvSpec, str], Act]]:
    """Return the configuration to play with, the policy's iteration, and what makes it act."""
    path = Path(policy)
    if (path / "policy.onnx").is_file():
        exported = OnnxPolicy(path)
        env = with_new_names({"env": exported.about["env"]})["env"]
        config = RunConfig(env=EnvConfig(**env), rollout=RolloutConfig())
        return config, exported.about["iteration"], lambda spec, device: _onnx_act(exported, device)
    checkpoint = say_found(find(policy, []))
    config = config_of(checkpoint)

    def make_act(spec: EnvSpec, device: str) -> Act:
        networks = make_policy(config, spec, device)
        load_weights(networks, checkpoint)
        to_env, mode = networks.distribution.to_env, networks.distribution.mode
        return lambda obs: to_env(mode(networks.action_params(obs)))

    return config, checkpoint.meta["iteration"], make_act


def _onnx_act(exported: OnnxPolicy, device: str) -> Act:
    def act(obs: dict[str, torch.Tensor]) -> torch.Tensor:
        actions = exported.act({group: x.cpu().numpy() for group, x in obs.items()})
        return torch.from_numpy(actions).to(device)

    return act


def _hold_levels(env_config: EnvConfig, levels: Sequence[int]) -> None:
    """Make `env_config` the variant of the task that tells outcomes: env i on level i % L.

    Raises:
        ConfigError: It is not of a stack that has the task.
        MissingDependencyError: mjlab is not installed.
    """
    env_config.play = False
    facts = facts_of(env_config)
    if facts.package == "isaaclab":
        env_config.task = ISAAC_TASK
        held = {"levels": {"params": {"levels": list(levels)}}}
        env_config.cfg = {**env_config.cfg, "curriculum": held}
    elif facts.package == "mjlab":
        try:
            from isaac_hydra_ext.tasks.go1_nav import mjlab_task
        except ImportError as e:
            raise MissingDependencyError(
                f"{e}; install mjlab with: pip install 'isaac-hydra-ext[mjlab]'"
            ) from e
        name = f"{mjlab_task.TASK}-Levels-{'-'.join(map(str, levels))}"
        env_config.task = mjlab_task.register(name, levels=levels)
    else:
        raise ConfigError(f"{facts.name}: the task is on mjlab and Isaac Lab only")


def _play(
    env: VecEnv, act: Act, num_levels: int, episodes: int, seed: int
) -> list[list[list[float]]]:
    """Return, by level, `OUTCOME` of each episode.

    Every env plays its fixed share, so that short episodes are not over-represented.
    """
    B = env.spec.num_envs
    if "outcome" not in env.spec.obs:
        raise EnvError(f"the env has no obs group 'outcome', only {', '.join(env.spec.obs)}")
    level_B = np.arange(B) % num_levels
    rank_B, per_level = np.arange(B) // num_levels, B // num_levels
    quota_B = episodes // per_level + (rank_B < episodes % per_level)
    played: list[list[list[float]]] = [[] for _ in range(num_levels)]
    obs = env.reset(seed)
    limit = int(quota_B.max()) * (env.spec.max_episode_length + 1)
    for _ in range(limit):
        with torch.no_grad():  # not around the env, which may differentiate
            action = act(obs)
        result = env.step(action)
        obs = result.obs
        done_B = (result.terminated_B | result.truncated_B).cpu().numpy() & (quota_B > 0)
        if done_B.any():
            outcome_BK = obs["outcome"].cpu().numpy()
            for b in done_B.nonzero()[0]:
                played[level_B[b]].append(outcome_BK[b].tolist())
            quota_B[done_B] -= 1
            if not quota_B.any():
                return played
    raise EnvError(f"episodes have not ended after {limit:,} steps")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m isaac_hydra_ext.tasks.go1_nav.evaluate",
        description=(__doc__ or "").splitlines()[0],
    )
    parser.add_argument(
        "policy",
        help="a run directory, a checkpoint file, latest, best, or a directory with policy.onnx",
    )
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 5, 9], help="default: 0 5 9")
    parser.add_argument("--episodes", type=int, default=256, help="on each level (default: 256)")
    parser.add_argument(
        "--num-envs", type=int, help="side by side on each level (default: as many as episodes)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument("--seed", type=int, default=0, help="of terrain and episodes (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args()

    def task() -> None:
        result = evaluate(
            arguments.policy,
            arguments.levels,
            arguments.episodes,
            arguments.num_envs,
            arguments.device,
            arguments.seed,
        )
        print(f"{result['stack']}, iteration {result['iteration']}, {arguments.episodes} episodes")
        for level, told in result["levels"].items():
            ratio = told["path_over_straight"]
            print(
                f"level {level}: success {told['success']:.3f}, falls {told['falls']:.3f}"
                + ("" if ratio is None else f", path over straight line {ratio:.2f}")
            )
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")

    end_process(run_reporting_errors(task))


if __name__ == "__main__":
    main()
