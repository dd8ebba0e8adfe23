"""Whether a checkpoint belongs to this run's env and networks, and what of it does.

Runs in the learner's process. Everything is compared before anything is loaded.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.errors import CheckpointError, shown
from isaac_hydra_ext.models.normalizer import REST

OPTIMIZER, NETWORKS = "optimizer.", "policy."
PER_ENV = ".per_env"  # ends the names of what is of each env: there may be others
MOMENTS = {"exp_avg", "exp_avg_sq"}  # of Adam and AdamW, beside `step`; all there or none
SQUARES = {"square_avg"}  # of RMSprop


def check_fits(checkpoint: Checkpoint, own: Mapping[str, torch.Tensor], spec: Any) -> None:
    """Refuse a checkpoint of another env or network.

    Args:
        checkpoint: The file.
        own: The tensors it should have. The optimizer's may be absent on either side.
        spec: The env's spec as JSON data; obs and action must be the same.

    Raises:
        CheckpointError: Names the first key that differs, expected and found.
    """
    differences = list(_differences(checkpoint, own, spec))
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise CheckpointError(
            f"{checkpoint.path}: {differences[0][1]}{more}; set env and policy.* as in the run it "
            "comes from, or say checkpoint.partial=true to take what fits"
        )


def fitting_part(
    checkpoint: Checkpoint, own: Mapping[str, torch.Tensor], spec: Any
) -> tuple[Checkpoint, list[str]]:
    """Return a checkpoint that fits: its own tensors where they do, else this run's.

    The optimizer's moments are of all parameters at once: they are taken only if all fit.

    Args:
        checkpoint: The file.
        own: This run's tensors.
        spec: The env's spec as JSON data.

    Returns:
        The checkpoint, and a line for each thing that was left out.
    """
    left_out = dict(_differences(checkpoint, own, spec))
    taken = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if name not in left_out and not (left_out and name.startswith(OPTIMIZER))
    }
    lines = [f"not taken from {checkpoint.path}: {line}" for line in left_out.values()]
    return replace(checkpoint, tensors={**own, **taken}), lines


def networks_alone(checkpoint: Checkpoint, own: Mapping[str, torch.Tensor]) -> Checkpoint:
    """Return another algorithm's checkpoint with the networks that it has, and else what is ours.

    Args:
        checkpoint: The file.
        own: This run's tensors.
    """
    ours = {name: tensor for name, tensor in own.items() if not name.startswith(NETWORKS)}
    theirs = {name: x for name, x in checkpoint.tensors.items() if name.startswith(NETWORKS)}
    return replace(checkpoint, tensors={**ours, **theirs})


def _differences(
    checkpoint: Checkpoint, own: Mapping[str, torch.Tensor], spec: Any
) -> Iterator[tuple[str, str]]:
    """Yield (name, line) of everything that does not fit."""
    saved_spec, found = checkpoint.meta["spec"], checkpoint.tensors
    for key in ("obs", "action"):
        expected = json.loads(json.dumps(spec[key]))
        if saved_spec[key] != expected:
            line = f"of another environment: {key} is {shown(saved_spec[key], 300)}, here "
            yield f"spec.{key}", line + shown(expected, 300)
    for name, tensor in own.items():
        if name.startswith(OPTIMIZER) or name.endswith(PER_ENV):
            continue
        if name not in found:
            if not name.endswith(f".{REST}"):
                yield name, f"has no tensor {name!r}"
        elif line := _misfit(found[name], tensor.shape, tensor.dtype):
            yield name, f"{name} {line}"
    for name in found:
        if name not in own and not (name.startswith(OPTIMIZER) or name.endswith(PER_ENV)):
            yield name, f"has {shown(repr(name))}, which the run's networks do not"
    yield from _optimizer_differences(found, own)


def _optimizer_differences(
    found: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, str]]:
    names = {name for name in found if name.startswith(OPTIMIZER)}
    if not names:
        return
    size = _num_parameters(own)
    squares = names == {f"{OPTIMIZER}{name}" for name in SQUARES}
    expected = {f"{OPTIMIZER}{m}": torch.Size([size]) for m in (SQUARES if squares else MOMENTS)}
    if not squares:
        expected[f"{OPTIMIZER}step"] = torch.Size([])
    for name in sorted(names - set(expected)):
        yield name, f"has {shown(repr(name))}, which the optimizer does not"
    for name, shape in expected.items():
        if name not in found:
            yield name, f"has no tensor {name!r}"
        elif line := _misfit(found[name], shape, torch.float32):
            yield name, f"{name} {line}"


def _num_parameters(own: Mapping[str, torch.Tensor]) -> int:
    """Return how many parameters a run has: as many as moments, where its optimizer has any."""
    for name, tensor in own.items():
        if name.startswith(OPTIMIZER) and tensor.dim():
            return tensor.numel()
    # The normalisers' statistics are not parameters; everything else in the networks is, but for a
    # std that is not learned.
    parameters = [
        tensor
        for name, tensor in own.items()
        if name.startswith("policy.") and "normalizer" not in name.split(".")[1]
    ]
    return sum(tensor.numel() for tensor in parameters)


def _misfit(found: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> str:
    """Say what is wrong with a tensor, or nothing."""
    if found.shape != shape:
        return f"is {tuple(found.shape)}, expected {tuple(shape)}"
    if found.dtype != dtype:
        return f"is {found.dtype}, expected {dtype}"
    if not torch.isfinite(found).all():
        return "holds NaN or Inf, expected finite numbers"
    return ""
