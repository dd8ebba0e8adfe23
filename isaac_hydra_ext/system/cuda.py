"""CUDA graphs and streams. Used in every process that has a GPU: the learner's, a collector's."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Generic, TypeVar

import torch

from isaac_hydra_ext.errors import LearnerError, first_line

T = TypeVar("T")
WARM_UPS = 3  # as PyTorch's own make_graphed_callables; the first of them also compiles


class Captured(Generic[T]):
    """A function's kernels, captured once as a CUDA graph and replayed without their launch cost.

    The function reads and writes the same tensors each time. Capture before other threads use the
    GPU: whatever they allocate while a graph is captured ends the capture.

    Attributes:
        result: What the function returned while it was captured; a replay writes it anew.
    """

    def __init__(
        self,
        function: Callable[[], T],
        stream: torch.cuda.Stream,
        before_each: Callable[[], object] = lambda: None,
    ) -> None:
        """Run the function `WARM_UPS` times on `stream`, then capture it.

        Args:
            function: Kept, and with it every tensor that it reads: a replay would otherwise read
                the freed memory of one that had gone.
            stream: Not the default one.
            before_each: Called before each of these runs; not captured.

        Raises:
            LearnerError: The function does what no graph can hold.
        """
        self._function = function
        with torch.cuda.device(stream.device):  # else another GPU gets a context too
            self._capture(stream, before_each)

    def _capture(self, stream: torch.cuda.Stream, before_each: Callable[[], object]) -> None:
        function = self._function
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                before_each()
                function()
            before_each()
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        try:
            # A capture that fails leaves its stream the current one: the outer `with` does not.
            with torch.cuda.stream(stream), torch.cuda.graph(self._graph, stream=stream):
                self.result = function()
        except RuntimeError as e:
            cause = e.__context__ or e  # ending the capture fails too, and says less
            raise LearnerError(
                f"a network's work cannot be captured as a CUDA graph ({first_line(cause)}): one "
                "that waits for the GPU, or whose shapes depend on values, needs "
                "ppo.cuda_graphs=false"
            ) from e

    def __call__(self) -> T:
        """Replay on the current stream; returns `result`."""
        self._graph.replay()
        return self.result


class Beside:
    """A block of work that runs beside the one that follows it; on a CPU, before it.

    Use as `with beside: first()`, then `second()`, then `beside.join()`. What `first` makes may be
    read after `join` only. Inside a CUDA graph the two become parallel branches.
    """

    def __init__(self, device: torch.device) -> None:
        """Make a second stream on a GPU."""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._inside = torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def __enter__(self) -> None:
        """Begin after everything that the current stream has been given."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        self._inside.__enter__()

    def __exit__(self, *exception: object) -> None:
        """Go back to the stream before."""
        self._inside.__exit__(*exception)  # type: ignore[arg-type]

    def join(self) -> None:
        """Have the current stream wait for the block."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)


def free_memory(device: str) -> int | None:
    """Return the bytes that are free on a GPU; None where there is none."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info(torch.device(device))[0]
