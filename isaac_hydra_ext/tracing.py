"""Traces of a few iterations, for Perfetto: `logging.profile=[from, to]`.

Used in every process that has a part in them: the learner's, and each worker's for its rollouts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

DIRECTORY = "profile"  # in a run's


class Tracer:
    """Records one process from the first iteration of a window to its last, and writes a file.

    CPU operations are those of the thread that calls `around`; the GPU's are of all threads.
    """

    def __init__(
        self, window: Sequence[int], run_dir: Path, who: str, tell: Callable[[str], None]
    ) -> None:
        """Nothing is recorded yet.

        Args:
            window: The first and the last iteration to trace; empty for none.
            run_dir: The trace becomes `profile/<who>.json.gz` there.
            who: Names this process.
            tell: Told where the trace is, or why there is none.
        """
        self._window = range(window[0], window[1] + 1) if window else range(0)
        self._path, self._tell = run_dir / DIRECTORY / f"{who}.json.gz", tell
        self._profile: profile | None = None

    def check(self, first: int, last: int) -> None:
        """Say so if no iteration of a run, `first` to `last` - 1, is in the window."""
        window = self._window
        if window and (window[0] >= last or window[-1] < first):
            asked = f"logging.profile=[{window[0]},{window[-1]}]"
            self._tell(f"{asked}: nothing to trace, the run has iterations {first} to {last - 1}")

    @contextmanager
    def around(self, iteration: int) -> Iterator[None]:
        """Trace a block if its iteration is in the window; the last one writes the file."""
        if iteration not in self._window:
            yield
            return
        if self._profile is None:
            self._profile = profile(activities=_activities())
            self._profile.start()
        with record_function(f"iteration {iteration}"):
            yield
        if iteration == self._window[-1]:
            self.close()

    def close(self) -> None:
        """Write what has been recorded, if that has not been done."""
        if self._profile is None:
            return
        recorded, self._profile, self._window = self._profile, None, range(0)
        recorded.stop()
        try:
            self._path.parent.mkdir(exist_ok=True)
            recorded.export_chrome_trace(str(self._path))
        except (OSError, RuntimeError) as e:
            self._tell(f"no trace: {self._path} cannot be written ({e})")
            return
        self._tell(f"trace: {self._path} (open it in https://ui.perfetto.dev)")


def _activities() -> list[ProfilerActivity]:
    gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *gpu]
