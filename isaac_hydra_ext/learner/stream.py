"""The learner's own CUDA stream, so that a simulation on the same GPU goes on beside it.

Runs in the learner's process. On a CPU there is no stream, and everything here does nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from isaac_hydra_ext.errors import DeviceMemoryError


class LearnerStream:
    """Where an algorithm's device work goes.

    Attributes:
        stream: None on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        """Make a stream on a GPU."""
        self._device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Work on it, and on its GPU.

        Without the latter, leaving the stream would give the first GPU a context that nobody needs.
        """
        if self.stream is None:
            yield
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self.stream):
            yield

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Work on it after what the caller's stream has, before what that gets next."""
        if self.stream is None:
            yield
            return
        callers = torch.cuda.current_stream(self._device)
        self.stream.wait_stream(callers)
        with self.current():
            yield
        callers.wait_stream(self.stream)

    def wait(self) -> None:
        """Have the host wait for it, in a way that lets other threads use the device meanwhile.

        A copy to ordinary host memory waits too, but holds the driver's lock of copies meanwhile: a
        simulation in this process would stop at its next one until the update is done.
        """
        if self.stream is not None:
            self.stream.synchronize()


@contextmanager
def naming_memory(device: torch.device, samples: int) -> Iterator[None]:
    """Say in one line what does not fit on the GPU.

    Args:
        device: The learner's.
        samples: N_buffer.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as e:
        raise DeviceMemoryError(
            f"{device}: no memory for an update of {samples:,} samples "
            f"({str(e).splitlines()[0]}); lower rollout.envs_per_worker or "
            "rollout.steps_per_env, or raise ppo.num_mini_batches"
        ) from e
