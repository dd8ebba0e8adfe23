"""What mjlab's true final observations cost: `auto_reset=False` against its own resets.

python -m benchmarks.mjlab_final_obs --json benchmarks/results/h200/mjlab_final_obs.json

Both envs are of one process and one seed, get the same random actions, and take turns, block by
block; the numbers are medians over the blocks. With `auto_reset=False` a step gives the final
observations and `reset(env_ids=...)` begins the next episodes: one more forward pass of the physics
and one more computing of all observations in each step with an end. On a CPU, where mjlab repeats
itself to the bit, the first step is told at which envs whose episode goes on differ.
"""

import contextlib
import io
import statistics
import time
from typing import Any, NamedTuple

import torch

from benchmarks.common import markdown, run_benchmark
from isaac_hydra_ext.envs.contract import copy_obs

ON_GPU = torch.cuda.is_available()
DEVICE, NUM_ENVS = ("cuda:0", 4096) if ON_GPU else ("cpu", 16)
TASKS = {"cartpole": "Mjlab-Cartpole-Balance", "go1_flat": "Mjlab-Velocity-Flat-Unitree-Go1"}
BLOCKS, STEPS, WARM_UP = (20, 20, 40) if ON_GPU else (10, 5, 5)
COMPARED = 20  # steps of the comparison


class Step(NamedTuple):
    """What a trainer would learn from: the next observations, and which envs' episodes ended."""

    obs: dict[str, torch.Tensor]
    ended_B: torch.Tensor


class Env:
    """One mjlab env that begins ended episodes anew in the same step, one way or the other."""

    def __init__(self, task: str, num_envs: int, auto_reset: bool) -> None:
        """Build it, at random times of its episodes."""
        import mjlab.tasks  # noqa: F401  registers them
        from mjlab.envs import ManagerBasedRlEnv
        from mjlab.tasks.registry import load_env_cfg

        cfg = load_env_cfg(task)
        cfg.scene.num_envs, cfg.seed, cfg.auto_reset = num_envs, 1, auto_reset
        self._auto_reset = auto_reset
        with contextlib.redirect_stdout(io.StringIO()):  # its tables
            self._env = ManagerBasedRlEnv(cfg, device=DEVICE)
            self.begin()

    def begin(self, near_the_end: bool = False) -> None:
        """Reset all envs to the same states, at random or at late times of their episodes."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._env.reset(seed=1)
        clock, length = self._env.episode_length_buf, self._env.max_episode_length
        first = length - COMPARED if near_the_end else 0
        generator = torch.Generator().manual_seed(1)
        clock.copy_(torch.randint(first, length, clock.shape, generator=generator))

    def step(self, generator: torch.Generator) -> Step:
        """Take one step with actions of `generator`."""
        shape = (self._env.num_envs, self._env.single_action_space.shape[0])
        action_BA = torch.randn(shape, generator=generator, device=DEVICE)
        obs, _, terminated, truncated, _ = self._env.step(action_BA)
        ended_B = terminated | truncated
        if not self._auto_reset:
            envs = ended_B.nonzero().squeeze(1)
            if len(envs):
                obs, _ = self._env.reset(env_ids=envs)
        return Step(copy_obs(obs), ended_B)

    def close(self) -> None:
        """Close the simulation."""
        self._env.close()


def measure(tasks: dict[str, str], quick: bool) -> dict[str, Any]:
    """Measure each task."""
    blocks = 2 if quick else BLOCKS
    rows = []
    for task in tasks.values():
        envs = [Env(task, NUM_ENVS, auto_reset) for auto_reset in (True, False)]
        differs = None if ON_GPU else _first_difference(envs)
        own, manual, ends = _take_turns(envs, blocks)
        for env in envs:
            env.close()
        more = statistics.median(m / o - 1.0 for o, m in zip(own, manual, strict=True))
        rows.append(
            {
                "task": task,
                "num_envs": NUM_ENVS,
                "own_ms": statistics.median(own),
                "manual_ms": statistics.median(manual),
                "more": more,
                "steps_with_an_end": ends,
                "first_difference": differs,
            }
        )
        print(rows[-1], flush=True)
    return {"device": DEVICE, "blocks": blocks, "steps": STEPS, "rows": rows}


def _first_difference(envs: list[Env]) -> int | None:
    """Return the first step after which an env whose episode goes on has other observations."""
    trajectories = []
    for env in envs:  # one after the other: both draw from torch's global generator
        env.begin(near_the_end=True)
        generator = torch.Generator(DEVICE).manual_seed(2)
        trajectories.append([env.step(generator) for _ in range(COMPARED)])
    for t, (own, manual) in enumerate(zip(*trajectories, strict=True)):
        goes_on_B = ~(own.ended_B | manual.ended_B)
        if any(not obs[goes_on_B].equal(manual.obs[g][goes_on_B]) for g, obs in own.obs.items()):
            return t
    return None


def _take_turns(envs: list[Env], blocks: int) -> tuple[list[float], list[float], float]:
    """Return the [ms] a step of each block, of both envs, and the share of steps with an end."""
    generators = [torch.Generator(DEVICE).manual_seed(3) for _ in envs]
    times: list[list[float]] = [[], []]
    ends = []
    for block in range(-1, blocks):
        for env, generator, spent in zip(envs, generators, times, strict=True):
            _wait()
            began = time.perf_counter()
            steps = [env.step(generator) for _ in range(STEPS if block >= 0 else WARM_UP)]
            _wait()
            if block >= 0:
                spent.append(1000.0 * (time.perf_counter() - began) / STEPS)
                ends += [float(step.ended_B.any()) for step in steps]
    return times[0], times[1], statistics.mean(ends)


def _wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("task", "envs", "its own resets [ms]", "auto_reset=False [ms]", "more", "with an end")
    rows = [
        (
            *(row["task"], f"{row['num_envs']:,}", f"{row['own_ms']:.2f}"),
            *(f"{row['manual_ms']:.2f}", f"{row['more']:+.1%}", f"{row['steps_with_an_end']:.0%}"),
        )
        for row in results["rows"]
    ]
    lines = [markdown(header, rows)]
    for row in results["rows"]:
        if (step := row["first_difference"]) is not None:
            lines.append(f"{row['task']}: other trajectories from step {step} on")
    return "\n".join(lines)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
