"""The policy that a checkpoint holds: its configuration, and its weights.

Runs wherever a trained policy is built again: in the commands, in the evaluator, and in the learner
that has it for a teacher.
"""

from copy import deepcopy

import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.config.reading import read
from isaac_hydra_ext.config.renamed import with_new_names
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.registry import check_env
from isaac_hydra_ext.errors import CheckpointError, ConfigError
from isaac_hydra_ext.models.normalizer import REST
from isaac_hydra_ext.models.policy import Policy

# Of Isaac Lab's launcher flags those that a task may need; the others show or record something.
SIMULATED_WITH = ("enable_cameras", "experience", "rendering_mode", "kit_args", "deterministic")
# What acting does not read.
CRITIC = ("critic.", "critic_encoders.", "critic_normalizers.", "value_normalizer.")


def config_of(checkpoint: Checkpoint) -> RunConfig:
    """Return the configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: It holds none that a run could have.
    """
    saved = with_new_names(deepcopy(checkpoint.meta["config"]))
    try:
        saved["env"]["trainer_defaults"] = {}  # its recommendations have been taken, or overruled
        saved["resume"] = None
        # Of this process, not of that run.
        if isinstance(launcher := saved["env"].get("launcher"), dict):
            saved["env"]["launcher"] = {k: v for k, v in launcher.items() if k in SIMULATED_WITH}
        config = read(saved).config()
        # In one process, wherever it was.
        config.experiment.device, config.ppo.precision = "cpu", "fp32"
        if config.rollout.device.startswith("cuda"):
            config.rollout.device = "cuda:0" if torch.cuda.is_available() else "cpu"
            config.rollout.num_workers, config.rollout.on_invalid = 0, "stop"
        check_env(config)
    except (ConfigError, KeyError) as e:
        raise CheckpointError(f"{checkpoint.path}: its configuration is not valid: {e}") from e
    return config


def load_weights(policy: Policy, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights and normalisers into `policy`.

    Of an actor's file (`appo export --actor`) the critic stays as it was initialised.

    Raises:
        CheckpointError: Names the first tensor that does not fit.
    """
    for name, tensor in policy.state_dict().items():
        if checkpoint.meta.get("actor_only") and name.startswith(CRITIC):
            continue
        found = checkpoint.tensors.get(f"policy.{name}")
        if found is None and name.endswith(f".{REST}"):
            continue
        if found is None or found.shape != tensor.shape or found.dtype != tensor.dtype:
            is_now = "missing" if found is None else f"{tuple(found.shape)} of {found.dtype}"
            raise CheckpointError(
                f"{checkpoint.path}: policy.{name} is {is_now}, expected {tuple(tensor.shape)} "
                f"of {tensor.dtype}"
            )
        tensor.copy_(found)
