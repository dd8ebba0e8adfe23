"""Each knob by itself: within the bounds and among the choices that its field declares.

Runs in the learner's process, and where an encoder is built.
"""

import math
from collections.abc import Mapping
from typing import Any

from isaac_hydra_ext.config.nested import walk
from isaac_hydra_ext.errors import ConfigError, did_you_mean, shown

MAX_TEXT = 4096  # characters of a text


def check_bounds(config: Any) -> None:
    """Check every knob of nested dataclasses against the bounds and choices it declares.

    Raises:
        ConfigError: The first finding.
    """
    for key, value, limits in walk(config):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                _check_text(key, item)
            if isinstance(value, list) and isinstance(item, (list, dict)):
                raise ConfigError(f"{key}={shown(value)}: a list of plain values is expected here")
            if limits["choices"] and item is not None and item not in limits["choices"]:
                allowed = ", ".join(limits["choices"])
                raise ConfigError(
                    f"{key}={shown(item)}: must be one of {allowed}"
                    + did_you_mean(str(item), limits["choices"])
                )
            if isinstance(item, (int, float)) and not isinstance(item, bool):
                check_number(key, item, limits)


def _check_text(key: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{key}={shown(text)}: longer than {MAX_TEXT} characters")
    if not text.isprintable():  # line ends and NUL too
        raise ConfigError(f"{key}={shown(ascii(text))}: must consist of printable characters")


def check_number(key: str, number: float, limits: Mapping[str, Any]) -> None:
    """Check one number against the bounds of its knob.

    Raises:
        ConfigError: It is not finite, or out of them.
    """
    if number == math.inf:
        raise ConfigError(f"{key}={number}: must be finite")
    # Written so that NaN fails every bound.
    if limits["ge"] is not None and not number >= limits["ge"]:
        raise ConfigError(f"{key}={number}: must be at least {limits['ge']:,.12g}")
    if limits["gt"] is not None and not number > limits["gt"]:
        raise ConfigError(f"{key}={number}: must be greater than {limits['gt']:,.12g}")
    if limits["le"] is not None and not number <= limits["le"]:
        raise ConfigError(f"{key}={number}: must be at most {limits['le']:,.12g}")
