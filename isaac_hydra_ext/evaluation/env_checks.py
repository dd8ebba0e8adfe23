"""The checks of `appo check`: what an env promises, and whether it keeps to it.

Each looks at the spec and at three trials: two of one seed and one of another. Runs in the process
that hosts the env.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, VecEnv
from isaac_hydra_ext.envs.gym_check import complaints
from isaac_hydra_ext.envs.registry import facts_of, make_env
from isaac_hydra_ext.errors import EnvError, IsaacHydraExtError
from isaac_hydra_ext.evaluation.env_trial import COMPARED, Trial, try_out
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.terminal.findings import Finding, Status

SEED = 1
USUAL_REWARD = (0.01, 10.0)  # mean size a step; docs/own_env.md


@dataclass(frozen=True)
class Trials:
    """What the checks look at."""

    spec: EnvSpec
    first: Trial
    again: Trial  # the same seed
    other: Trial  # another seed


def examine(config: RunConfig, steps: int) -> Iterator[Finding]:
    """Make all checks, as far as the env lets them be made.

    Args:
        config: The complete one; B is `rollout.envs_per_worker`.
        steps: Of the longest trial.

    Raises:
        Exception: Whatever the env raises, once what was found before has been yielded.
    """
    try:
        env = make_env(config, SEED)
    except IsaacHydraExtError as e:
        yield Finding("build", "fail", str(e), "docs/own_env.md: what an env must keep to")
        return
    try:
        yield Finding("build", "ok", f"{env.spec.num_envs} envs")
        yield observations(env.spec)
        yield actions(env.spec)
        yield readers(config, env.spec)
        try:
            yield from judge(trials_of(env, steps))
        except EnvError as e:  # what an adapter finds itself
            yield Finding("steps", "fail", str(e), "docs/own_env.md: what an env must keep to")
            return
    finally:
        env.close()
    if facts_of(config.env).is_pure_gym:
        yield from gymnasium(config)


def trials_of(env: VecEnv, steps: int) -> Trials:
    """Try an env out."""
    first = try_out(env, SEED, steps)
    return Trials(env.spec, first, try_out(env, SEED, COMPARED), try_out(env, SEED + 1, 1))


def judge(trials: Trials) -> Iterator[Finding]:
    """Yield what the trials show; nothing but the breach where the contract was broken."""
    yield contract(trials)
    if not trials.first.wrong:
        for check in CHECKS:
            yield check(trials)


def observations(spec: EnvSpec) -> Finding:
    """Say which there are."""
    groups = [
        f"{name} {'x'.join(map(str, s.shape)) or 'one number'} {s.dtype}"
        for name, s in spec.obs.items()
    ]
    return Finding("observations", "ok", ", ".join(groups))


def actions(spec: EnvSpec) -> Finding:
    """Say which there are, and whether they have bounds."""
    action = spec.action
    if action.kind == "discrete":
        return Finding("action", "ok", f"discrete, choices {list(action.nvec)}")
    found = f"{action.dim} numbers in {list(action.low)} .. {list(action.high)}"
    if any(low >= high for low, high in zip(action.low, action.high, strict=True)):
        return Finding("action", "fail", f"{found}: an empty range", "mend the action space")
    if any(
        isfinite(low) != isfinite(high) for low, high in zip(action.low, action.high, strict=True)
    ):
        fix = "give both bounds of an axis or none; a one-sided one is clipped"
        return Finding("action", "warn", f"{found}: an axis with one bound", fix)
    return Finding("action", "ok", found)


def readers(config: RunConfig, spec: EnvSpec) -> Finding:
    """Say which groups the actor and the critic would read."""
    name = "who reads what"
    fix = "policy.obs_groups={actor: [...], critic: [...]}"
    try:
        policy = make_policy(config, spec, "cpu")
    except IsaacHydraExtError as e:
        return Finding(name, "fail", str(e), fix)
    actor, critic = list(policy.actor_groups), list(policy.critic_groups)
    found = f"the actor {', '.join(actor)}; the critic {', '.join(critic)}"
    unread = [group for group in spec.obs if group not in (*actor, *critic)]
    if unread:
        return Finding(name, "warn", f"{found}; nobody {', '.join(unread)}", fix)
    return Finding(name, "ok", found)


def contract(trials: Trials) -> Finding:
    """Shapes and dtypes of every reset and step."""
    first = trials.first
    if first.wrong:
        fix = "give what the spaces promise, the same in every step"
        return Finding("steps", "fail", first.wrong, fix)
    return Finding("steps", "ok", f"{first.steps} steps of {trials.spec.num_envs} envs")


def finite(trials: Trials) -> Finding:
    """NaN and Inf, also under actions at the bounds."""
    if trials.first.not_finite:
        fix = "a run would end there (rollout.on_invalid); look for a division or a diverging state"
        return Finding("finite", "fail", f"NaN or Inf: {trials.first.not_finite}", fix)
    return Finding("finite", "ok", "observations and rewards, with actions at the bounds too")


def rewards(trials: Trials) -> Finding:
    """Whether there are any, and of which size."""
    size = float(torch.stack(trials.first.rewards).abs().mean())
    found = f"mean size {size:.3g} a step"
    low, high = USUAL_REWARD
    if size == 0:
        fix = "PPO learns from what chance finds: shape the reward, or try more --steps"
        return Finding("reward", "warn", "0 in every step of random actions", fix)
    if not low <= size <= high:
        fix = f"scale it to {low:g} .. {high:g}, or set policy.normalize_values=true"
        return Finding("reward", "warn", found, fix)
    return Finding("reward", "ok", found)


def episodes(trials: Trials) -> Finding:
    """Whether they end."""
    first, limit = trials.first, trials.spec.max_episode_length
    found = f"{first.terminated} terminated, {first.truncated} truncated"
    if first.terminated + first.truncated:
        return Finding("episodes", "ok", found)
    if limit > first.steps:
        return Finding("episodes", "ok", f"none ended in {first.steps} steps; the limit is {limit}")
    fix = "returns are counted of whole episodes: set max_episode_steps where it is registered"
    return Finding("episodes", "warn", f"none ended in {first.steps} steps", fix)


def autoreset(trials: Trials) -> Finding:
    """Whether the observation after an end is the next episode's first."""
    first = trials.first
    if first.not_reset:
        fix = "reset in the step that ends an episode; the last observation goes into final_obs"
        found = (
            f"after {first.not_reset} of {first.truncated} ends the observation is still the last"
        )
        return Finding("autoreset", "fail", found, fix)
    if not trials.spec.has_final_obs:
        return Finding("autoreset", "ok", "not visible without final observations")
    if not first.truncated:
        return Finding("autoreset", "ok", "no truncation seen")
    return Finding("autoreset", "ok", f"seen at {first.truncated} truncations")


def final_observations(trials: Trials) -> Finding:
    """What truncated episodes bootstrap from."""
    first, spec = trials.first, trials.spec
    if first.no_final_obs:
        fix = "give final_obs with every truncation, or promise none (EnvSpec.has_final_obs)"
        return Finding("final obs", "fail", f"missing at {first.no_final_obs} truncations", fix)
    return Finding("final obs", "ok", f"truncated episodes bootstrap from {spec.bootstrap}")


def kept_tensors(trials: Trials) -> Finding:
    """Whether what a step returned stays as it was."""
    if trials.first.rewritten:
        fix = "clone what the simulator keeps: every tensor returned is the caller's"
        names = ", ".join(sorted(trials.first.rewritten))
        return Finding("kept tensors", "fail", f"rewritten by the next step: {names}", fix)
    return Finding("kept tensors", "ok", "nothing that was returned is rewritten")


def determinism(trials: Trials) -> Finding:
    """Whether the same seed and actions give the same again."""
    pairs = zip(trials.first.obs, trials.again.obs, strict=False)
    for step, (a, b) in enumerate(pairs):
        differ = [g for g in a if not torch.equal(a[g].nan_to_num(), b[g].nan_to_num())]
        if differ:
            where = f"observation {differ[0]} differs at {f'step {step}' if step else 'the reset'}"
            fix = "draw from self.np_random alone, after super().reset(seed=seed)"
            return Finding("determinism", "warn", f"one seed, twice: {where}", fix)
    return Finding("determinism", "ok", "one seed gives the same again")


def seeds(trials: Trials) -> Finding:
    """Whether seeds and envs begin differently."""
    ours, other = trials.first.obs[0], trials.other.obs[0]
    if all(torch.equal(ours[g], other[g]) for g in ours):
        fix = "fine if the task begins so; else let reset draw from self.np_random"
        return Finding("seeds", "warn", "two seeds begin with the same observations", fix)
    return Finding("seeds", "ok", "two seeds begin differently")


def varying(trials: Trials) -> Finding:
    """Whether each group says anything."""
    seen = trials.first.obs
    still = [g for g in seen[0] if all(torch.equal(seen[0][g], obs[g]) for obs in seen[1:])]
    if still and len(seen) > 1:
        fix = "does step() observe the new state? else leave the group out"
        return Finding("varying", "warn", f"never changed: {', '.join(still)}", fix)
    return Finding("varying", "ok", "every observation group changes")


def gymnasium(config: RunConfig) -> Iterator[Finding]:
    """Yield what Gymnasium's own checker says."""
    said = list(complaints(config.env))
    for is_wrong, text in said:
        status: Status = "fail" if is_wrong else "warn"
        yield Finding("gymnasium", status, text, "Gymnasium's check_env says so")
    if not said:
        yield Finding("gymnasium", "ok", "its own check_env finds nothing")


CHECKS: tuple[Callable[[Trials], Finding], ...] = (
    finite, rewards, episodes, autoreset, final_observations, kept_tensors, determinism, seeds,
    varying,
)  # fmt: skip
