"""How one number is shown. Used by whoever makes it and by whoever shows it."""

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric that is shown under a name of its own.

    Attributes:
        label: In words.
        tag: Under which it is logged.
        format: As in `format(value, ...)`.
    """

    label: str
    tag: str
    format: str = ".4g"
