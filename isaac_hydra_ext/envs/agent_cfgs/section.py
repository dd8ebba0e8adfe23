"""A part of another trainer's configuration, of which nothing is lost without a word.

Runs in worker 0 during `describe`.
"""

from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.errors import ConfigError, shown

INSTEAD = "env.agent=none starts from this package's defaults instead"


class Section:
    """What a cfg says under one name; what nobody takes is told at the end.

    Attributes:
        notes: A line for each value that has no counterpart here; shared with parts of it.
    """

    def __init__(
        self,
        trainer: str,
        data: Mapping[str, Any] | None,
        path: str = "",
        notes: list[str] | None = None,
    ) -> None:
        """Read `data`, which is called `path` in a cfg of `trainer`."""
        self._trainer, self._path = trainer, path
        self._data: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        self._left = dict(self._data)
        self.notes: list[str] = [] if notes is None else notes

    def __contains__(self, key: str) -> bool:
        """Return whether the cfg says it."""
        return key in self._data

    def __bool__(self) -> bool:
        """Return whether the cfg says anything."""
        return bool(self._data)

    def __getitem__(self, key: str) -> Any:
        """Return a value, which is then seen to.

        Raises:
            ConfigError: The cfg does not say it.
        """
        if key not in self._data:
            raise ConfigError(
                f"env.task: its {self._trainer} cfg does not say {self._path}{key}; {INSTEAD}"
            )
        return self.get(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, which is then seen to."""
        self._left.pop(key, None)
        return self._data.get(key, default)

    def names(self) -> list[str]:
        """Return what the cfg says, by name."""
        return list(self._data)

    def part(self, key: str) -> "Section":
        """Return what lies below a key."""
        return Section(self._trainer, self.get(key), f"{self._path}{key}.", self.notes)

    def ignore(self, *keys: str) -> None:
        """See to keys that say nothing of how a policy is trained."""
        for key in keys:
            self._left.pop(key, None)

    def expect(self, key: str, usual: Any, here: str) -> None:
        """Take a value that is as here if it is `usual`, or not there; else say what is `here`."""
        if (value := self.get(key, usual)) != usual:
            self.note(key, value, here)

    def note(self, key: str, value: Any, here: str) -> None:
        """Say what stands for a value that has no counterpart."""
        self.notes.append(f"{self._trainer}'s {self._path}{key}={shown(value)}: {here}")

    def refuse(self, key: str, value: Any, why: str) -> ConfigError:
        """Return the error that refuses a value."""
        return ConfigError(
            f"env.task: its {self._trainer} cfg ({self._path}{key}={shown(value)}) {why}; {INSTEAD}"
        )

    def done(self) -> None:
        """Note what nobody has taken."""
        for key, value in self._left.items():
            if value not in (None, {}, [], ()):
                self.note(key, value, "has no counterpart here")
        self._left = {}
