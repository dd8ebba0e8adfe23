"""The files that `appo export` wrote, ready to act with ONNX Runtime and without torch.

Runs in the process of `appo run-onnx`, and in the learner's that has them for a teacher. Nothing
here, or imported from here, imports torch.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isaac_hydra_ext.errors import ExportError, MissingDependencyError, shown

SCHEMA_VERSION = 1  # of policy.json


class OnnxPolicy:
    """The files that `appo export` wrote, ready to act.

    Attributes:
        about: `policy.json`.
    """

    def __init__(self, directory: Path) -> None:
        """Load and check them.

        Raises:
            ExportError: A file is missing, damaged, or of another export.
            MissingDependencyError: onnxruntime is not installed.
        """
        self.about = _read_description(directory)
        path = directory / "policy.onnx"
        try:
            data = path.read_bytes()
        except OSError as e:
            raise ExportError(f"{path}: cannot be read ({e}); export again") from e
        if hashlib.sha256(data).hexdigest() != self.about["sha256"]["policy.onnx"]:
            raise ExportError(f"{path}: not the file that policy.json describes; export again")
        try:
            import onnxruntime
        except ImportError as e:
            raise MissingDependencyError(
                f"{path}: {e}; install it with: pip install 'isaac-hydra-ext[export]'"
            ) from e
        self._session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        self._inputs = {o["input"]: (o["group"], o["dtype"]) for o in self.about["obs"]}
        self._remembers = self.about.get("state", [])  # exports of before have none
        self._state: list[np.ndarray] = []
        self._stack = {o["group"]: o.get("frame_stack", 1) for o in self.about["obs"]}  # likewise
        self._frames: dict[str, np.ndarray] = {}  # group -> [N, K, ...], the oldest first

    def __call__(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the action [A] for one env's obs groups."""
        return self.act({group: np.asarray(x)[None] for group, x in obs.items()})[0]

    def act(self, obs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the actions [N, A] for N envs' obs groups [N, ...].

        A policy that remembers, or sees stacks of pictures, goes on from the call before; with
        another N it begins anew.
        """
        feed = {
            name: self._seen(group, np.asarray(obs[group], dtype))
            for name, (group, dtype) in self._inputs.items()
        }
        count = len(next(iter(feed.values())))
        if self._remembers and (not self._state or self._state[0].shape[1] != count):
            shapes = [(part["shape"][0], count, part["shape"][2]) for part in self._remembers]
            self._state = [np.zeros(shape, np.float32) for shape in shapes]
        names = [part["input"] for part in self._remembers]
        outputs = ["actions", *(part["output"] for part in self._remembers)]
        found = self._session.run(outputs, {**feed, **dict(zip(names, self._state, strict=True))})
        actions, *self._state = (np.asarray(output) for output in found)
        return actions

    def _seen(self, group: str, newest: np.ndarray) -> np.ndarray:
        """Return the last K of an episode, the first repeated at its start; K = 1: the newest."""
        count = self._stack[group]
        if count == 1:
            return newest
        frames, past = newest[:, None], self._frames.get(group)
        if past is None or len(past) != len(newest):
            past = np.repeat(frames, count, axis=1)
        self._frames[group] = np.concatenate([past[:, 1:], frames], axis=1)
        return self._frames[group]

    def forget(self) -> None:
        """Begin new episodes, and remember nothing of those before."""
        self._state, self._frames = [], {}


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / "policy.json"
    if not path.is_file():
        nested = directory / "exported"
        hint = f"; did you mean {nested}?" if nested.is_dir() else "; appo export RUN writes one"
        raise ExportError(f"{shown(path)}: no such file{hint}")
    try:
        about = json.loads(path.read_text())
        schema = int(about["schema"])
        known = {"env": dict, "obs": list, "action": dict, "sha256": dict}
        wrong = [key for key, kind in known.items() if not isinstance(about[key], kind)]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ExportError(f"{path}: damaged ({shown(e)}); export again") from e
    if schema > SCHEMA_VERSION:
        raise ExportError(f"{path}: schema {schema} is newer than this version's; update")
    if wrong:
        raise ExportError(f"{path}: damaged ({', '.join(wrong)}); export again")
    return about
