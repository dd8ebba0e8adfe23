"""How workers get the env states that a resumed run goes on from. Used on both sides of a block.

They may be megabytes, too much for a pipe, and were read with their checkpoint: its file may be
gone by now. So the learner writes them into the block that is to hold the rollouts, and BUILD says
which part of it is whose; `attach` then sizes the block anew.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isaac_hydra_ext.workers.shared_memory import SharedBlock

Place = dict[str, Any]  # name of the block, and where in it: begin, end [bytes]


def write_env_states(
    block: SharedBlock, states: Sequence[Mapping[str, Any] | None]
) -> list[Place | None]:
    """Write the workers' env states (learner).

    Args:
        block: That holds nothing yet.
        states: JSON-ready, one a worker, in their order.

    Returns:
        For each where it is, for `read_env_state`.

    Raises:
        SharedMemoryError: There is no room for them.
    """
    texts = [json.dumps(state).encode() if state is not None else b"" for state in states]
    ends = np.cumsum([len(text) for text in texts]).tolist()
    if not ends or not ends[-1]:
        return [None] * len(texts)
    block.allocate(ends[-1])[:] = np.frombuffer(b"".join(texts), np.uint8)
    return [
        {"name": block.name, "begin": end - len(text), "end": end} if text else None
        for text, end in zip(texts, ends, strict=True)
    ]


def read_env_state(block: SharedBlock, place: Place) -> dict[str, Any]:
    """Read one worker's (worker)."""
    return json.loads(block.attach(place["name"], place["end"])[place["begin"] :].tobytes())
