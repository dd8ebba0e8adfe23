"""NaN and Inf in a rollout: where they began, and a dump of what led there.

Runs wherever the collector does, for the few rollouts that are not `Slot.is_finite`.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from isaac_hydra_ext.rollout.slot import Slot

MAX_DUMPS = 16  # files in a run's nan_dump/
MAX_DUMP_STEPS = 256  # those that led there, and the one where it began
MAX_DUMP_BYTES = 16 * 2**20


@dataclass(frozen=True)
class InvalidNumber:
    """Where the numbers of one env went wrong first.

    Attributes:
        env: Its index in the worker's vector env.
        step: t of the rollout. Observation t is what action t answers, reward t follows them;
            observation T is the one after the last step.
        key: obs/<group>, action, action log-prob, reward or final_obs/<group>.
        element: Index in that key's flattened entry.
        value: nan, inf or -inf.
    """

    env: int
    step: int
    key: str
    element: int
    value: float

    def __str__(self) -> str:
        """Return the words for a message."""
        return f"env {self.env}, step {self.step}: {self.key}[{self.element}] is {self.value}"


def find_invalid(slot: Slot, groups: Collection[str], steps: int) -> list[InvalidNumber]:
    """Return where each env's numbers went wrong first, the earliest first.

    Args:
        slot: The rollout.
        groups: As in `Slot.is_finite`.
        steps: As in `Slot.is_finite`.
    """
    found: list[InvalidNumber] = []  # within a step in the order in which they are made
    for key, x in slot.numbers(groups, steps):
        bad_SB = _invalid_entries(x, 2)
        for env in bad_SB.any(0).nonzero().flatten().tolist():
            step = int(bad_SB[:, env].nonzero()[0])
            found.append(_describe(env, step, key, x[step, env]))
    for key, x in slot.final_numbers(groups):
        assert slot.final_index_C2 is not None
        for row in _invalid_entries(x, 1).nonzero().flatten().tolist():
            step, env = slot.final_index_C2[row].tolist()
            found.append(_describe(env, step, key, x[row]))
    first: dict[int, InvalidNumber] = {}
    for number in sorted(found, key=lambda number: number.step):  # within a step the order stays
        first.setdefault(number.env, number)
    return list(first.values())


def _invalid_entries(x: torch.Tensor, leading: int) -> torch.Tensor:
    """Return which entries hold a NaN or Inf; the first `leading` dimensions stay."""
    bad = ~torch.isfinite(x.to(torch.float32))
    return bad.flatten(leading).any(-1) if x.dim() > leading else bad


def _describe(env: int, step: int, key: str, entry: torch.Tensor) -> InvalidNumber:
    values = entry.reshape(-1).to(torch.float32)
    element = int((~torch.isfinite(values)).nonzero()[0])
    return InvalidNumber(env, step, key, element, float(values[element]))


def write_dump(
    directory: Path,
    number: InvalidNumber,
    slot: Slot,
    previous: Slot | None,
    steps: int,
    about: dict[str, int],
) -> str:
    """Write the steps of one env up to its invalid number, as safetensors.

    Args:
        directory: `nan_dump/` of the run; made if it is missing.
        number: What was found.
        slot: The rollout it is in.
        previous: The rollout before, where its memory still holds it.
        steps: As in `Slot.is_finite`.
        about: Worker, generation, iteration and policy version; in the name and the metadata.

    Returns:
        Where it was written, or why not, as the end of a sentence.
    """
    tensors = _last_steps(slot, number.env, min(number.step + 1, steps))
    if previous is not None:
        earlier = _last_steps(previous, number.env, previous.reward_TB.shape[0])
        earlier = {k: x[:-1] if k.startswith("obs/") else x for k, x in earlier.items()}
        tensors = {k: torch.cat([earlier[k], x]) for k, x in tensors.items()}
    step_bytes = sum(x[0].numel() * x.element_size() for x in tensors.values() if len(x))
    kept = max(1, min(MAX_DUMP_STEPS, MAX_DUMP_BYTES // max(1, step_bytes)))
    tensors = {k: x[-kept - 1 :] if k.startswith("obs/") else x[-kept:] for k, x in tensors.items()}
    name = "worker_{worker}_generation_{generation}_rollout_{iteration}".format(**about)
    path = directory / f"{name}_env_{number.env}.safetensors"
    found = {**asdict(number), "value": str(number.value)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if len(list(directory.iterdir())) >= MAX_DUMPS:
            return f"not dumped: {directory} holds {MAX_DUMPS} files"
        save_file(tensors, path, metadata={"isaac_hydra_ext": json.dumps({**about, **found})})
    except (OSError, SafetensorError) as e:
        return f"not dumped: {e}"
    return f"its last steps are in {path}"


def _last_steps(slot: Slot, env: int, steps: int) -> dict[str, torch.Tensor]:
    """Copy what one env did in its first `steps` steps, and the observation after them."""
    fields = {f"obs/{group}": obs[: steps + 1] for group, obs in slot.obs.items()}
    fields |= {
        "action": slot.action_TBA[:steps],
        "reward": slot.reward_TB[:steps],
        "terminated": slot.terminated_TB[:steps],
        "truncated": slot.truncated_TB[:steps],
    }
    return {key: x[:, env].clone().cpu() for key, x in fields.items()}
