"""A trained policy as a function, for scripts and notebooks: `action = policy(obs)`.

Runs in the caller's process. Public as `isaac_hydra_ext.load_policy`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.checkpoints.saved_policy import config_of, load_weights
from isaac_hydra_ext.config.checks import as_path
from isaac_hydra_ext.config.schema import ExperimentConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import EnvError
from isaac_hydra_ext.models.policy import Policy, State, restarted
from isaac_hydra_ext.models.registry import make_policy

OUTPUT_DIR = ExperimentConfig().output_dir
Array = TypeVar("Array", np.ndarray, torch.Tensor)


def load_policy(
    run: str | Path = "latest",
    *,
    experiment: str = "",
    output_dir: str | Path = OUTPUT_DIR,
    device: str = "cpu",
    seed: int = 0,
) -> "LoadedPolicy":
    """Load a trained policy.

    Args:
        run: A run directory (its newest checkpoint), a checkpoint file, `latest` or `best`.
        experiment: `experiment.name` of the runs that the words look at; empty: of any.
        output_dir: `experiment.output_dir` of these runs.
        device: Where the policy acts.
        seed: Of its noise, where it is asked for sampled actions.

    Raises:
        CheckpointError: Nothing there, or it does not load.
        ConfigError: Not a path.
    """
    root = as_path("output_dir", str(output_dir))
    runs, pattern = (root / experiment, "*") if experiment else (root, "*/*")
    found = find_checkpoint(str(run), runs, key="load_policy: ", pattern=pattern)
    checkpoint = found.checkpoint
    spec = EnvSpec.from_json(checkpoint.meta["spec"])
    policy = make_policy(config_of(checkpoint), spec, device)
    load_weights(policy, checkpoint)
    return LoadedPolicy(policy, spec, checkpoint.path, checkpoint.meta["iteration"], seed)


class LoadedPolicy:
    """Acts on observations of one env or of N, as `env.step` took its actions in training.

    Attributes:
        spec: Of the env that it was trained in.
        path: Of the checkpoint.
        iteration: After which it was saved.
    """

    def __init__(
        self, policy: Policy, spec: EnvSpec, path: Path, iteration: int, seed: int
    ) -> None:
        """Start an episode; see `load_policy`."""
        self.spec, self.path, self.iteration = spec, path, iteration
        self._policy, self._device = policy, policy.flat.device
        self._groups = [group for group in policy.actor_groups if group in spec.obs]
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._state: State | None = None
        self._count = 0

    def reset(self, ended_N: Array | None = None) -> None:
        """Forget the episodes so far; only a policy with memory remembers anything of them.

        Args:
            ended_N: bool, of the envs whose episodes have ended; None: all.
        """
        if ended_N is None or self._state is None:
            self._state = None
            return
        ended = torch.as_tensor(ended_N, device=self._device)
        self._state = restarted(self._state, self._policy.initial_state(self._count), ended)

    def __call__(self, obs: Mapping[str, Array] | Array, deterministic: bool = True) -> Array:
        """Return the action [A] for one env's observation, or [N, A] for N.

        Discrete actions are int64 counted from 0, A of them (Gymnasium's Discrete is one).

        Args:
            obs: Raw, as the env gives it: group -> array; or one array, where the policy reads one
                group. With a leading dimension N or without.
            deterministic: The mean (or most likely) action; False draws one.

        Raises:
            EnvError: A group is missing, or has another shape than in training.
        """
        groups = obs if isinstance(obs, Mapping) else self._only_group(obs)
        batch, single = self._batch(groups)
        count = len(next(iter(batch.values())))
        if self._state is None or count != self._count:
            self._state, self._count = self._policy.initial_state(count), count
        noise = None
        if not deterministic:
            noise = self._policy.distribution.draw_noise((count,), self._generator)
        with torch.no_grad():
            acted = self._policy.act(batch, self._state, noise)
        self._state = acted.state
        action = acted.env_action_BA[0] if single else acted.env_action_BA
        given = next(iter(groups.values()))
        if isinstance(given, torch.Tensor):
            return action.to(given.device)
        return action.cpu().numpy()  # type: ignore[return-value]

    def _only_group(self, obs: Array) -> Mapping[str, Array]:
        if len(self._groups) != 1:
            names = ", ".join(self._groups)
            raise EnvError(f"obs: one array, but the policy reads {names}; give a dict of them")
        return {self._groups[0]: obs}

    def _batch(self, obs: Mapping[str, Array]) -> tuple[dict[str, torch.Tensor], bool]:
        """Return the groups that the policy reads, [N, ...] each, and whether N was left out."""
        batch: dict[str, torch.Tensor] = {}
        singles = set()
        for group in self._groups:
            if group not in obs:
                raise EnvError(f"obs group {group!r} is missing; there are {sorted(obs)}")
            expected = self.spec.obs[group]
            x = torch.as_tensor(
                obs[group], dtype=getattr(torch, expected.dtype), device=self._device
            )
            shape, wanted = tuple(x.shape), expected.shape
            single = shape == wanted
            if not single and shape[1:] != wanted:
                raise EnvError(
                    f"obs group {group!r}: expected {[*wanted]} or {['N', *wanted]}, got {[*shape]}"
                )
            singles.add(single)
            batch[group] = x[None] if single else x
        if len(singles) != 1 or len({len(x) for x in batch.values()}) != 1:
            shapes = {group: [*x.shape] for group, x in batch.items()}
            raise EnvError(f"obs: the groups are of different numbers of envs: {shapes}")
        return batch, singles.pop()
