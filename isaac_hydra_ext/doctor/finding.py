"""One line of the doctor's. Made in the process of `appo doctor`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        name: Of the check.
        status: ok; warn: something will not work or be slow; fail: runs cannot work.
        found: What there is, in one line.
        fix: What to do, for warn and fail.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""
