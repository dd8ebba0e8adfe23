"""How much of the long tests runs here: a part, or the whole under `scripts/test_long.sh`."""

import os
from typing import TypeVar

T = TypeVar("T")

LONG = os.environ.get("APPO_TEST_LONG") == "1"


def here(part: T, whole: T) -> T:
    """Return `whole` before a release, else `part`."""
    return whole if LONG else part
