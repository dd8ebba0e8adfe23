"""What turns rollouts into the next policy version: the protocol, and who serves which kind.

Runs in the learner's process. A package registers its own in the entry-point group
`isaac_hydra_ext.algorithms`, as `make(config, spec, device, group) -> Algorithm`, and is chosen by
`algorithm.kind`; `config.algorithm.kwargs` is its own to read, and `make.knobs`, if there is such,
names what it reads of `ppo` and `distillation` (`("ppo.lr", "ppo.symmetry")`): others that a user
types are told to have no effect. This package brings `ppo/` and `distillation/`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.learner.distillation.distillation import Distillation
from isaac_hydra_ext.learner.group import Group, OneProcess
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.terminal.metric import Metric


class Algorithm(Protocol):
    """One learner. Iteration k: `load`, `update`, `publish`; saved between two iterations.

    Attributes:
        policy: The networks that are trained; `policy.flat` is what is published.
        notes: Lines for the user, of how updates are computed. The run prints and removes them.
        fields: Names of recorded fields (`Policy.fields`) that it reads. The run refuses a policy
            that does not record them.
        shown: What the console and `summary.json` show of its metrics first.
    """

    policy: Policy
    notes: list[str]
    fields: Collection[str]
    shown: Sequence[Metric]

    def capture(self) -> None:
        """Compile and capture what can be, before the first rollout. Changes no weight.

        Called while no other thread uses the GPU.

        Raises:
            DeviceMemoryError: The device is too small for it.
        """

    def load(self, slots: list[Slot]) -> None:
        """Take an iteration's rollouts over, in the collectors' order.

        The slots may be read until `update` has returned: then they are the collectors' again, and
        nothing of them may be kept. Each collector has L + 1, so that none waits for it.
        """
        ...

    def update(self, iteration: int) -> dict[str, float]:
        """Learn from what was loaded: version `iteration` becomes `iteration + 1`.

        May run in another thread than the rest (W = 0).

        Returns:
            Metrics by tag. `Loss/undone` is 1 where the update was undone for NaN or Inf.

        Raises:
            NonFiniteError: Nothing can be learned from this, and going on makes no sense.
            DeviceMemoryError: The device is too small for it; nothing has changed.
        """
        ...

    def publish(self, store: WeightStore, version: int) -> None:
        """Write the current weights to a store; returns when they may be read from it."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything that learning goes on from: `policy.<name>`, and what else there is.

        Names of an optimizer's own state begin with `optimizer.`: a checkpoint may come without.
        """
        ...

    def load_state_dict(
        self, state: Mapping[str, torch.Tensor], before: Mapping[str, Any] | None = None
    ) -> None:
        """Restore `state_dict`'s tensors, in place.

        Args:
            state: As a checkpoint holds them; checked to fit.
            before: The configuration that was trained with: what the user has changed since then
                is not restored. None: nothing has changed.
        """
        ...


def make_algorithm(
    config: RunConfig, spec: EnvSpec, device: torch.device, group: Group | None = None
) -> Algorithm:
    """Build the learner that `algorithm.kind` names.

    Args:
        config: The complete one.
        spec: Of one collector's env.
        device: Where to learn.
        group: The ranks that learn together; None for one process.

    Raises:
        ConfigError: Its policy does not record a field that it reads; a teacher does not fit.
    """
    kind = config.algorithm.kind
    if kind in entry_points.BUILT_IN[entry_points.ALGORITHMS]:
        return (Distillation if config.has_teacher else PPO)(config, spec, device, group)
    make = entry_points.load("algorithm.kind", kind, entry_points.ALGORITHMS)
    algorithm: Algorithm = make(config, spec, device, group or OneProcess())
    missing = [name for name in algorithm.fields if name not in algorithm.policy.fields]
    if missing:
        raise ConfigError(
            f"algorithm.kind={kind}: reads the recorded field {missing[0]!r}, which "
            f"policy.kind={config.policy.kind} does not record"
        )
    return algorithm
