"""How a field of the configuration is declared. Used in every process."""

from dataclasses import field
from typing import Any

MAX_INT = 2**31 - 1  # of every integer that declares no other bound
MAX_WAIT_S = 1e6  # poll counts milliseconds in 32 bits


def knob(
    default: Any,
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare one documented field; its bounds are checked by `config/bounds.py`.

    The text of a number begins with its unit in brackets, `[-]` where it has none.
    """
    if le is None and type(default) is int:
        le = MAX_INT
    metadata = {"doc": doc, "ge": ge, "gt": gt, "le": le, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
