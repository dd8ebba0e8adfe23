"""Traces of a few iterations, for Perfetto: `logging.profile=[from, to]`.

Used in every process that has a part in them: the learner's, and each worker's for its rollouts.
"""

import gzip
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function

DIRECTORY = "profile"  # in a run's


class Tracer:
    """Records one process from the first iteration of a window to its last, and writes a file.

    CPU operations are those of the thread that calls `around`; the GPU's are of all threads.
    """

    def __init__(
        self,
        window: Sequence[int],
        last: int,
        run_dir: Path,
        who: str,
        on_gpu: bool,
        tell: Callable[[str], None],
    ) -> None:
        """Nothing is recorded yet.

        Args:
            window: The first and the last iteration to trace; empty for none.
            last: The run ends before this iteration, and with it the window.
            run_dir: The trace becomes `profile/<who>.json.gz` there.
            who: Names this process.
            on_gpu: Whether the process uses a GPU. (To ask for its kernels makes a context there.)
            tell: Told where the trace is, or why there is none.
        """
        self._asked, self._last = window, last
        self._window = range(window[0], min(window[1], last - 1) + 1) if window else range(0)
        self._path, self._tell = run_dir / DIRECTORY / f"{who}.json.gz", tell
        gpu = [ProfilerActivity.CUDA] if on_gpu else []
        self._activities = [ProfilerActivity.CPU, *gpu]
        self._profile: profile | None = None

    def check(self, first: int) -> None:
        """Say so if no iteration of a run that begins with `first` is in the window."""
        if self._asked and (not self._window or self._window[-1] < first):
            asked = "logging.profile=[{},{}]".format(*self._asked)
            there = f"{first} to {self._last - 1}"
            self._tell(f"{asked}: nothing to trace, the run has iterations {there}")

    def writes_after(self, iteration: int) -> bool:
        """Return whether the trace is written once this iteration is done."""
        return bool(self._window) and iteration == self._window[-1]

    @contextmanager
    def around(self, iteration: int) -> Iterator[None]:
        """Trace a block if its iteration is in the window; the last one writes the file."""
        if iteration not in self._window:
            yield
            return
        if self._profile is None:
            self._profile = profile(activities=self._activities)
            self._profile.start()
        with record_function(f"iteration {iteration}"):
            yield
        if self.writes_after(iteration):
            self._write()

    def _write(self) -> None:
        """Write what has been recorded, whole or not at all."""
        recorded, self._profile = self._profile, None
        assert recorded is not None
        plain, packed = (self._path.with_name(f".{self._path.stem}{end}") for end in ("", ".gz"))
        try:
            recorded.stop()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            recorded.export_chrome_trace(str(plain))
            with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
                shutil.copyfileobj(source, target)
            packed.replace(self._path)
        except (OSError, RuntimeError) as e:
            self._tell(f"no trace: {self._path} cannot be written ({e})")
        else:
            self._tell(f"trace: {self._path} (open it in https://ui.perfetto.dev)")
        finally:
            for path in (plain, packed):
                with suppress(OSError):  # it may never have been made
                    path.unlink()
