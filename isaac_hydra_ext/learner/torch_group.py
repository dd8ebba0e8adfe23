"""A `Group` of processes by torch.distributed: NCCL between GPUs, gloo on the CPU. In each rank.

Collectives of tensors are part of the update: on a GPU they are given to its stream, and captured
in CUDA graphs with the rest. What the host waits for goes through a group of its own, by gloo, in
slices of a second: there a rank may wait for another's workers, and hears meanwhile who has gone.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

from isaac_hydra_ext.errors import RankError, first_line
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.workers.beats import Beats

SLICE = timedelta(seconds=0.5)
HEAD = 1024  # bytes of a message that the first collective holds, its length among them
LENGTH = 8  # bytes of that


class TorchGroup(Group):
    """All ranks, as this one sees them."""

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        device: torch.device,
        beats: Beats,
        collective_s: float,
        patience_s: float,
    ) -> None:
        """Connect to the other ranks, which do the same.

        Args:
            store: Theirs too.
            rank: Of this process.
            size: How many there are.
            device: Of this learner.
            beats: Tells who has gone.
            collective_s: Limit of a collective in an update, where nobody waits for workers [s].
            patience_s: Limit of those that the host waits for [s].

        Raises:
            RankError: They do not connect.
        """
        self.rank, self.size, self._device, self._beats = rank, size, device, beats
        self._patience_s = patience_s
        # NCCL's own watchdog would end the process; a captured collective it does not see at all.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
        with self._blaming():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=PrefixStore("group", store),
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=collective_s),
            )
            self._host = dist.new_group(backend="gloo", timeout=timedelta(seconds=patience_s))
        beats.on_gone = self._abort

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        with self._blaming():
            dist.all_reduce(x)
        return x

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return self.sum(x).div_(self.size)

    def broadcast(self, x: torch.Tensor) -> torch.Tensor:
        with self._blaming():
            dist.broadcast(x, src=0)
        return x

    def check(self) -> None:
        if self._beats.gone:
            raise self._error(self._beats.gone)

    def exchange(self, data: Any) -> list[Any]:
        text = json.dumps(data).encode()
        message = len(text).to_bytes(LENGTH, "little") + text
        heads = self._gathered(message[:HEAD].ljust(HEAD, b"\0"), HEAD)
        lengths = [int.from_bytes(head[:LENGTH], "little") + LENGTH for head in heads]
        rest = max(lengths) - HEAD
        if rest > 0:
            tails = self._gathered(message[HEAD:].ljust(rest, b"\0"), rest)
            heads = [head + tail for head, tail in zip(heads, tails, strict=True)]
        texts = [head[LENGTH:n] for head, n in zip(heads, lengths, strict=True)]
        return [json.loads(text) for text in texts]

    def close(self) -> None:
        """Part from the other ranks; those that still wait for this one then fail at once."""
        if self._device.type == "cuda" and self._beats.gone:
            return  # it would wait for those that have gone
        dist.destroy_process_group()

    def _gathered(self, data: bytes, size: int) -> list[bytes]:
        ours = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        theirs = [torch.empty(size, dtype=torch.uint8) for _ in range(self.size)]
        deadline = time.monotonic() + self._patience_s
        with self._blaming():
            work = dist.all_gather(theirs, ours, group=self._host, async_op=True)
            assert work is not None
            while not _is_over(work):
                self.check()
                if time.monotonic() > deadline:
                    raise RankError(f"no answer of the other ranks within {self._patience_s:g} s")
        return [tensor.numpy().tobytes() for tensor in theirs]

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """Turn what torch.distributed raises into who has gone."""
        try:
            yield
        except RuntimeError as e:
            gone = self._beats.verdict()
            raise self._error(gone or {-1: f"a collective has failed: {first_line(e)}"}) from e

    def _error(self, gone: dict[int, str]) -> RankError:
        self._beats.heard()
        rank, why = next(iter(sorted(gone.items())))
        return RankError(f"rank {rank} of {self.size}: {why}" if rank >= 0 else why)

    def _abort(self) -> None:
        """Have a GPU that waits for a rank that has gone wait no longer; in the beats' thread."""
        if self._device.type == "cuda":
            group = dist.distributed_c10d._get_default_group()
            group._get_backend(self._device).abort()


def _is_over(work: dist.Work) -> bool:
    """Wait for a while; returns whether the work is done.

    Raises:
        RuntimeError: It has failed.
    """
    try:
        work.wait(SLICE)
    except RuntimeError:
        if work.is_completed():
            raise
        return False
    return True
