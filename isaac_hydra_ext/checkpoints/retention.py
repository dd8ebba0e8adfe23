"""Which checkpoints of a run are kept. Runs in the learner's process, after each save."""

from pathlib import Path

from isaac_hydra_ext.checkpoints.find import best_first, iteration_of, list_checkpoints
from isaac_hydra_ext.config.schema import CheckpointConfig
from isaac_hydra_ext.errors import CheckpointError


def delete_old(directory: Path, config: CheckpointConfig, keep: int | None = None) -> None:
    """Delete what `keep_last`, `keep_every` and `keep_best` do not keep.

    To be called after `save_checkpoint`, which has read its file back: a sound one then remains.

    Args:
        directory: `checkpoints/` of the run.
        config: What to keep.
        keep: An iteration to keep as well: it may yet turn out to be the best.

    Raises:
        CheckpointError: A file cannot be deleted.
    """
    paths = list_checkpoints(directory)
    old = paths[: -config.keep_last] if config.keep_last else []
    old = [path for path in old if iteration_of(path) != keep]
    if config.keep_every is not None:
        old = [path for path in old if iteration_of(path) % config.keep_every]
    if old and config.keep_best:
        best = next(best_first([directory.parent], []), None)
        old = [path for path in old if path != best]
    for path in old:
        try:
            path.unlink(missing_ok=True)
        except OSError as e:
            raise CheckpointError(f"cannot delete the old checkpoint {path}: {e}") from e
