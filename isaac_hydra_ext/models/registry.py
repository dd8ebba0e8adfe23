"""Which policy serves which `policy.kind`. Used wherever a policy is built."""

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.system import entry_points


def make_policy(config: RunConfig, spec: EnvSpec, device: str | torch.device = "cpu") -> Policy:
    """Build the run's policy with the weights that its seed gives: the same in every process.

    Args:
        config: `policy` and `experiment.seed` are read.
        spec: Of one collector's env.
        device: Where it acts or is learned.

    Raises:
        ConfigError: `policy` does not go with the env's spaces, or a registered policy cannot be
            imported.
    """
    kind, seed = config.policy.kind, config.experiment.seed
    if kind in entry_points.BUILT_IN[entry_points.POLICIES]:
        network: type[ActorCritic] = ActorCritic
        if config.policy.recurrent.kind:
            # Here, as it takes PyTorch's compiler, which takes each process a second to import.
            from isaac_hydra_ext.models.recurrent import RecurrentActorCritic as network
        return network(config.policy, spec, seed, device, critic=not config.has_teacher)
    make = entry_points.load("policy.kind", kind, entry_points.POLICIES)
    return make(config.policy, spec, seed, device)
