"""Random actions in an env, and what came of them. Runs in the process that hosts it."""

import time
from dataclasses import dataclass, field

import torch

from isaac_hydra_ext.envs.contract import ActionSpec, StepResult, VecEnv, check_obs
from isaac_hydra_ext.errors import EnvContractError

COMPARED = 100  # observations that are kept, for other trials to be compared with
TIME_LIMIT_S = 60.0
CORNERS = 4  # one step in so many has every action at a bound


@dataclass
class Trial:
    """What some steps showed.

    Attributes:
        steps: Taken; fewer than asked for where something was wrong, or the time was up.
        obs: Copies of the first `COMPARED` observations, the reset's above all.
        rewards: Of each step, [B].
        terminated: Episodes that the task ended.
        truncated: Episodes that ended otherwise.
        wrong: What the contract forbids, in one line; empty: nothing.
        not_finite: What was NaN or Inf first, e.g. `reward at step 3`; empty: nothing.
        rewritten: The tensors that changed after they had been returned.
        no_final_obs: Truncations that came without a final observation.
        not_reset: Truncations after which the observation was still the final one.
    """

    steps: int = 0
    obs: list[dict[str, torch.Tensor]] = field(default_factory=list)
    rewards: list[torch.Tensor] = field(default_factory=list)
    terminated: int = 0
    truncated: int = 0
    wrong: str = ""
    not_finite: str = ""
    rewritten: set[str] = field(default_factory=set)
    no_final_obs: int = 0
    not_reset: int = 0


def try_out(env: VecEnv, seed: int, steps: int) -> Trial:
    """Reset, then act at random.

    Args:
        env: B envs.
        seed: Of the reset and of the actions.
        steps: At most.
    """
    trial, generator = Trial(), torch.Generator().manual_seed(seed)
    returned = {f"obs {k}": v for k, v in env.reset(seed).items()}
    _look_at_obs(trial, env, {k.removeprefix("obs "): v for k, v in returned.items()}, "the reset")
    copies = {name: tensor.clone() for name, tensor in returned.items()}
    until = time.monotonic() + TIME_LIMIT_S
    while trial.steps < steps and not trial.wrong and time.monotonic() < until:
        result = env.step(
            random_actions(env.spec.action, env.spec.num_envs, generator, trial.steps)
        )
        trial.steps += 1
        for name, tensor in returned.items():
            if not _same(tensor, copies[name]):
                trial.rewritten.add(name)
        returned = _tensors(result)
        copies = {name: tensor.clone() for name, tensor in returned.items()}
        _look_at(trial, env, result)
    return trial


def random_actions(
    spec: ActionSpec, count: int, generator: torch.Generator, step: int
) -> torch.Tensor:
    """Return [count, A], uniform within the bounds or at them, normal where there are none."""
    if spec.kind == "discrete":
        choices = [torch.randint(n, (count,), generator=generator) for n in spec.nvec]
        return torch.stack(choices, dim=1)
    low, high = torch.tensor(spec.low), torch.tensor(spec.high)
    share = torch.rand(count, spec.dim, generator=generator)
    if step % CORNERS == 0:
        share = share.round()
    normal = torch.randn(count, spec.dim, generator=generator)
    bounded = low.isfinite() & high.isfinite()
    inside = torch.where(bounded, low + share * (high - low), normal)
    return inside.clamp(low, high).float()


def _look_at(trial: Trial, env: VecEnv, result: StepResult) -> None:
    at = f"step {trial.steps}"
    B = env.spec.num_envs
    for name, dtype in (
        ("reward_B", torch.float32), ("terminated_B", torch.bool), ("truncated_B", torch.bool),
    ):  # fmt: skip
        found = getattr(result, name)
        if not isinstance(found, torch.Tensor) or found.shape != (B,) or found.dtype is not dtype:
            shape = tuple(getattr(found, "shape", ()))
            trial.wrong = f"{name} at {at}: expected {(B,)} {dtype}, got {shape} " + str(
                getattr(found, "dtype", type(found).__name__)
            )
            return
    _look_at_obs(trial, env, result.obs, at)
    trial.rewards.append(result.reward_B.detach().cpu().clone())
    if not result.reward_B.isfinite().all():
        trial.not_finite = trial.not_finite or f"reward at {at}"
    trial.terminated += int(result.terminated_B.sum())
    truncated_B = result.truncated_B & ~result.terminated_B
    trial.truncated += int(truncated_B.sum())
    if not truncated_B.any() or not env.spec.has_final_obs:
        return
    if result.final_obs is None:
        trial.no_final_obs += int(truncated_B.sum())
        return
    try:
        check_obs(result.final_obs, env.spec)
    except EnvContractError as e:
        trial.wrong = f"final observation at {at}: {e}"
        return
    for b in truncated_B.nonzero()[:, 0].tolist():
        final = {group: x[b] for group, x in result.final_obs.items()}
        if not all(bool(x.isfinite().all()) for x in final.values()):
            trial.not_finite = trial.not_finite or f"final observation at {at}"
        trial.not_reset += all(_same(x, result.obs[group][b]) for group, x in final.items())


def _look_at_obs(trial: Trial, env: VecEnv, obs: dict[str, torch.Tensor], at: str) -> None:
    try:
        check_obs(obs, env.spec)
    except EnvContractError as e:
        trial.wrong = trial.wrong or f"{at}: {e}"
        return
    for group, x in obs.items():
        if not x.isfinite().all():
            trial.not_finite = trial.not_finite or f"observation {group} at {at}"
    if len(trial.obs) < COMPARED:
        trial.obs.append({group: x.detach().cpu().clone() for group, x in obs.items()})


def _tensors(result: StepResult) -> dict[str, torch.Tensor]:
    """Return every tensor of a step by name: all are the caller's to keep."""
    found = {f"obs {group}": x for group, x in result.obs.items()}
    found |= {f"final obs {group}": x for group, x in (result.final_obs or {}).items()}
    for name in ("reward", "terminated", "truncated"):
        tensor = getattr(result, f"{name}_B")
        if isinstance(tensor, torch.Tensor):
            found[name] = tensor
    return found


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num()) if a.is_floating_point() else a.equal(b)
