"""A trained policy as files that need none of this package: ONNX, TorchScript, and a description.

Runs in the process of `appo export`, on the CPU; builds no env.

The exported function takes raw observations and returns what `env.step` received in training: the
normaliser, the deterministic action, squashing and clipping are inside. Nothing is written unless
ONNX Runtime and TorchScript agree with the policy itself.
"""

import hashlib
import importlib
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isaac_hydra_ext import __version__
from isaac_hydra_ext.checkpoints.file import Checkpoint, save_checkpoint
from isaac_hydra_ext.checkpoints.saved_policy import CRITIC, config_of, load_weights
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import CheckpointError, ExportError, MissingDependencyError
from isaac_hydra_ext.export.formats import (
    OPSET,
    DeployedPolicy,
    compare,
    normalisation,
    reference,
    sample_inputs,
    write_and_run,
)
from isaac_hydra_ext.export.remembering import ENVS
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.recurrent import RecurrentActorCritic
from isaac_hydra_ext.models.registry import seen_spec
from isaac_hydra_ext.system import entry_points

SCHEMA_VERSION = 1
CHECKED_INPUTS = 100
FILES = ("policy.onnx", "policy.pt", "policy.json")


@dataclass(frozen=True)
class Exported:
    """What `export` has written.

    Attributes:
        directory: Of the three files.
        max_difference: The largest one found between the files' outputs and the policy's.
    """

    directory: Path
    max_difference: float


def export(checkpoint: Checkpoint, directory: Path | None = None) -> Exported:
    """Write a checkpoint's policy as ONNX, TorchScript and JSON.

    Args:
        checkpoint: The policy.
        directory: Of the files; None: `exported/` of the run, or beside a lone checkpoint.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        CheckpointError: The weights do not fit the networks of their own configuration.
        ExportError: A file's outputs are not the policy's, or it cannot be written. What was
            there before is untouched.
    """
    _require("onnx")
    _require("onnxruntime")
    directory = directory or _default_directory(checkpoint)
    config = config_of(checkpoint)
    spec = EnvSpec.from_json(checkpoint.meta["spec"])
    if config.policy.kind not in entry_points.BUILT_IN[entry_points.POLICIES]:
        raise ExportError(
            f"{checkpoint.path}: its policy is policy.kind={config.policy.kind}, of another "
            "package; only policies of this one can be exported"
        )
    network = RecurrentActorCritic if config.policy.recurrent.kind else ActorCritic
    seen = seen_spec(config, spec)  # stacks are the file's input: whoever calls it makes them
    policy = network(config.policy, seen, config.experiment.seed, "cpu", critic=False)
    load_weights(policy, checkpoint)
    if not bool(policy.flat.isfinite().all()):
        raise CheckpointError(f"{checkpoint.path}: holds NaN or Inf; export an earlier checkpoint")
    envs = ENVS if policy.initial_state(1) else 1
    obs = sample_inputs(policy, seen, CHECKED_INPUTS * envs)
    expected = reference(policy, obs)
    module = DeployedPolicy(policy).eval()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".export-") as work:
            written = [Path(work, name) for name in FILES]
            outputs = write_and_run(module, obs, *written[:2])
            difference = max(
                compare(path.name, found, expected)
                for path, found in zip(written, outputs, strict=False)
            )
            about = describe(checkpoint, config, spec, module)
            about["checked"] = {
                "inputs": CHECKED_INPUTS,
                "max_difference": difference,
                "allowed": expected.allowed,
            }
            about["sha256"] = {path.name: file_digest(path) for path in written[:2]}
            written[2].write_text(json.dumps(about, indent=2, allow_nan=False) + "\n")
            directory.mkdir(exist_ok=True)
            for path in written:  # policy.json last: its digests tell whole from mixed
                path.replace(directory / path.name)
    except OSError as e:
        raise ExportError(f"{directory}: cannot write there ({e})") from e
    return Exported(directory, difference)


def export_actor(checkpoint: Checkpoint, directory: Path | None = None) -> Path:
    """Write `model_<iteration>.safetensors` with nothing but what acting needs.

    Args:
        checkpoint: The policy.
        directory: As of `export`.

    Raises:
        CheckpointError: It cannot be written.
        ExportError: There can be no such directory.
    """
    directory = directory or _default_directory(checkpoint)
    kept = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("policy.") and not name.removeprefix("policy.").startswith(CRITIC)
    }
    episodes = {k: v for k, v in checkpoint.meta["episodes"].items() if k != "running"}
    meta = {**checkpoint.meta, "env_states": None, "episodes": episodes, "actor_only": True}
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ExportError(f"{directory}: cannot write there ({e})") from e
    return save_checkpoint(directory, checkpoint.meta["iteration"], kept, meta)


def _default_directory(checkpoint: Checkpoint) -> Path:
    parent = checkpoint.path.absolute().parent
    return (parent.parent if parent.name == "checkpoints" else parent) / "exported"


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as e:
        raise MissingDependencyError(
            f"appo export: {e}; install it with: pip install 'isaac-hydra-ext[export]'"
        ) from e


def describe(
    checkpoint: Checkpoint,
    config: RunConfig,
    spec: EnvSpec,
    module: DeployedPolicy,
) -> dict[str, Any]:
    """Return what `policy.json` says; numbers that are infinite are null."""
    scales, seen = normalisation(module.policy), seen_spec(config, spec)
    obs = []
    for name, group in module.inputs.items():
        mean, std = scales[group] or (None, None)
        shape, stacked = seen.obs[group].shape, seen.obs[group] != spec.obs[group]
        about = {"input": name, "group": group, "shape": list(shape)}
        about["frame_stack"] = shape[0] if stacked else 1
        obs.append({**about, "dtype": spec.obs[group].dtype, "mean": mean, "std": std})
    action = spec.action
    return {
        "schema": SCHEMA_VERSION,
        "checkpoint": str(checkpoint.path),
        "iteration": checkpoint.meta["iteration"],
        "env": config.to_dict()["env"],
        "obs": obs,
        "action": {
            "outputs": module.outputs,
            "kind": action.kind,
            "dim": action.dim,
            "nvec": list(action.nvec),
            "low": [x if math.isfinite(x) else None for x in action.low],
            "high": [x if math.isfinite(x) else None for x in action.high],
            "squash": config.policy.squash,
            "clip": config.policy.clip_actions,
        },
        "state": [
            {"input": name, "output": module.state[name], "shape": [x.shape[0], None, x.shape[2]]}
            for name, x in zip(module.state, module.fresh, strict=True)
        ],
        "step_dt": spec.step_dt,
        "max_episode_length": spec.max_episode_length,
        "versions": {"isaac_hydra_ext": __version__, "torch": torch.__version__, "opset": OPSET},
    }


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
