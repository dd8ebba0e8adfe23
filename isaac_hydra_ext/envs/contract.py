"""The environment contract: what a worker asks of a vectorised environment, and nothing more.

Adapters live in the process that hosts the simulation (a worker, or the learner's with W = 0).
`EnvSpec` is plain data: it travels to the learner as JSON and decides the rollout buffer's layout.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch

from isaac_hydra_ext.errors import EnvContractError, EnvError


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one env's entry, without the batch dimension."""

    shape: tuple[int, ...]
    dtype: str  # a torch dtype's name: "float32", "uint8", ...

    @classmethod
    def of(cls, batched: torch.Tensor) -> "TensorSpec":
        """Read the per-env spec off a [B, ...] tensor."""
        return cls(tuple(batched.shape[1:]), str(batched.dtype).removeprefix("torch."))


@dataclass(frozen=True)
class ActionSpec:
    """One env's action.

    `continuous`: `dim` numbers; `low` and `high` have `dim` entries, infinite where unbounded.
    `discrete`: `dim` choices, the i-th among `nvec[i]` (Discrete is one choice).
    """

    kind: Literal["continuous", "discrete"]
    dim: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    nvec: tuple[int, ...] = ()


@dataclass(frozen=True)
class Mirror:
    """A symmetry of the task: which entry of an observation or action goes where.

    Entries are numbered from 1, as 0 has no sign: of `(2, -1)` the mirrored vector's first entry is
    the second one, and its second is minus the first.

    Attributes:
        obs: Of each group that is a vector.
        action: Of the action.
    """

    obs: dict[str, tuple[int, ...]]
    action: tuple[int, ...]


@dataclass(frozen=True)
class EnvSpec:
    """What the learner must know of an environment.

    Attributes:
        num_envs: B, the envs in this vector env.
        obs: Obs groups by name, per-env shapes.
        action: The action of one env.
        step_dt: Seconds of simulated time a step takes, 0 where unknown.
        max_episode_length: Steps until truncation, 0 where unlimited or unknown.
        has_final_obs: Whether `StepResult.final_obs` comes with every truncation.
        finite_horizon: Truncation is part of the task: it does not bootstrap.
        has_state: The adapter offers `state_dict` and `load_state_dict`.
        whole_state: That state holds running episodes; else they start anew, and what there is, a
            curriculum, is asked for each second for a worker that might take this one's place.
        mirrors: What `ppo.symmetry.data_augmentation_func` does, where that is set.
    """

    num_envs: int
    obs: dict[str, TensorSpec]
    action: ActionSpec
    step_dt: float
    max_episode_length: int
    has_final_obs: bool
    finite_horizon: bool = False
    has_state: bool = False
    whole_state: bool = True
    mirrors: tuple[Mirror, ...] = ()

    @property
    def bootstrap(self) -> str:
        """What a truncated episode's value is taken from, in words."""
        if self.finite_horizon:
            return "nothing: a finite horizon"
        return "the env's final observation" if self.has_final_obs else "V(s_t)"

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a pipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "EnvSpec":
        """Rebuild what `to_json` made."""
        obs = {k: TensorSpec(tuple(v["shape"]), v["dtype"]) for k, v in data["obs"].items()}
        action: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data["action"].items()
        }
        mirrors = tuple(
            Mirror({k: tuple(v) for k, v in m["obs"].items()}, tuple(m["action"]))
            for m in data.get("mirrors", ())
        )
        return cls(**{**data, "obs": obs, "action": ActionSpec(**action), "mirrors": mirrors})


@dataclass
class StepResult:
    """One step of all B envs. Every tensor is the caller's to keep.

    Attributes:
        obs: Group -> [B, ...]; where an episode ended, the next one's first observation.
        reward_B: float32.
        terminated_B: bool; the task ended the episode.
        truncated_B: bool; something outside the task did, a time limit mostly.
        final_obs: Group -> [B, ...], valid in rows that are truncated; None if none is or the
            env gives none.
        log: Scalars the env reports, only from steps with a reset; 0-dim tensors stay on their
            device until the rollout ends.
    """

    obs: dict[str, torch.Tensor]
    reward_B: torch.Tensor
    terminated_B: torch.Tensor
    truncated_B: torch.Tensor
    final_obs: dict[str, torch.Tensor] | None
    log: Mapping[str, float | torch.Tensor]


class VecEnv(Protocol):
    """A vector of B environments with same-step autoreset.

    A task's own functions are given `task_env` where there is one, else this.
    """

    spec: EnvSpec

    def reset(self, seed: int) -> dict[str, torch.Tensor]:
        """Start all episodes anew. Returns group -> [B, ...]."""
        ...

    def step(self, actions_BA: torch.Tensor) -> StepResult:
        """Advance all envs by one step.

        Args:
            actions_BA: [B, A] float32, or int64 for discrete actions.
        """
        ...

    def reset_envs(self, envs: list[int]) -> dict[str, torch.Tensor] | None:
        """Start the episodes of these envs anew, the others' go on.

        Returns:
            Group -> [len(envs), ...]; None, and nothing has happened, where only `reset` can.
        """
        ...

    def randomize_episode_time(self, generator: torch.Generator) -> bool:
        """Put each env at a random time of its episode; returns whether the env can."""
        ...

    def state_dict(self) -> dict[str, Any] | None:
        """Return the simulation's state as JSON-ready data, or None."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Restore `state_dict`'s data. Returns the observation of that state."""
        ...

    def render(self) -> np.ndarray:
        """Return a picture of env 0, [H, W, 3] uint8. Asked only of an env made to render.

        After the step that ended its episode it shows the end, where the env can; else what
        `obs` is of, the next one's beginning.

        Raises:
            RenderError: There is none; says why, and what to install or set.
        """
        ...

    def close(self) -> None:
        """Release the simulation."""
        ...


@dataclass(frozen=True)
class TaskDescription:
    """What a task says of itself before any env is built (the `describe` step).

    Attributes:
        default_num_envs: Envs over all workers when nobody says how many.
        settings: Knobs the task recommends, nested as in the config.
        env_config: The env's own configuration, for `params/env.yaml`.
        notes: Lines for the user, e.g. settings that have no counterpart here.
        authors: Of `settings`, those that the task's author made for this trainer.
    """

    default_num_envs: int
    settings: dict[str, Any]
    env_config: dict[str, Any]
    notes: tuple[str, ...] = ()
    authors: dict[str, Any] = field(default_factory=dict)


def copy_obs(
    obs: Mapping[str, torch.Tensor | Mapping[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """Copy manager-based observations; terms of an unconcatenated group become `group/term`.

    Raises:
        EnvError: Something else than a tensor, or groups within groups.
    """
    copies: dict[str, torch.Tensor] = {}
    for group, value in obs.items():
        terms = value.items() if isinstance(value, Mapping) else [(None, value)]
        for term, tensor in terms:
            name = f"{group}/{term}" if term else str(group)
            if not isinstance(tensor, torch.Tensor):
                raise EnvError(
                    f"observation {name!r} is a {type(tensor).__name__}; tensors, and one level of "
                    "groups of them, are supported"
                )
            copies[name] = tensor.clone()
    return copies


def check_obs(
    obs: Mapping[str, torch.Tensor], spec: EnvSpec, *, rows: int | None = None, what: str = ""
) -> None:
    """Refuse observations that do not have the shapes and dtypes of the first reset.

    Args:
        obs: Group -> [rows, ...].
        spec: Of the env.
        rows: Of how many envs; None: of all B.
        what: Which observations, for the message: `final `.

    Raises:
        EnvContractError: Names the group, what was expected and what came.
    """
    for group, expected in spec.obs.items():
        if group not in obs:
            raise EnvContractError(
                f"{what}obs group {group!r} is missing; the env gave {sorted(obs)}"
            )
        found, shape = obs[group], (spec.num_envs if rows is None else rows, *expected.shape)
        if found.shape != shape or found.dtype is not getattr(torch, expected.dtype):
            dtype = str(found.dtype).removeprefix("torch.")
            raise EnvContractError(
                f"{what}obs group {group!r}: expected {[*shape]} {expected.dtype}, "
                f"got {[*found.shape]} {dtype}"
            )
