"""Metadata as the runner writes it, and files that were never written by it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from isaac_hydra_ext.checkpoints.file import DIGEST_KEY, METADATA_KEY, _digest, save_checkpoint

from .builders import env_spec, run_config


def meta(iteration: int = 0, returns: tuple[float, ...] = (), **changes: Any) -> dict[str, Any]:
    """JSON data of a run of one collector with two envs."""
    counts = ("iterations", "env_steps", "samples_produced", "samples_consumed")
    data = {
        "env_steps": 16 * iteration,
        "config": run_config().to_dict(),
        "spec": env_spec().to_json(),
        "episodes": {"finished": [[r, 10] for r in returns], "total": len(returns)},
        "env_states": None,
        "totals": dict.fromkeys(counts, 16 * iteration),
    }
    return json.loads(json.dumps({**data, **changes}))


def write(directory: Path, iteration: int, *returns: float, env_id: str = "") -> Path:
    """A sound checkpoint; its one tensor says its iteration."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {"w": torch.full((2,), float(iteration))}
    about = meta(iteration, returns)
    about["config"]["env"]["id"] = env_id or about["config"]["env"]["id"]
    return save_checkpoint(directory, iteration, tensors, about)


def forge(path: Path, text: str, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A file of any metadata, with the checksum that belongs to it."""
    tensors = tensors or {"w": torch.zeros(2)}
    path.write_bytes(save(tensors, {METADATA_KEY: text, DIGEST_KEY: _digest(tensors, text)}))
    return path
