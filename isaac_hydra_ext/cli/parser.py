"""What `appo`'s commands read their arguments with: a complaint is one line, and says what is near.

Runs in each command's own process. Imports the standard library alone: the doctor reads its
arguments with it, wherever nothing else can be imported.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, NoReturn

from isaac_hydra_ext.errors import ConfigError

MAX_SEED = 2**31 - 1  # what every simulator's generator takes


class CommandParser(argparse.ArgumentParser):
    """`argparse` without abbreviations; wrong arguments are one line on stderr and exit code 2."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Refuse an unknown flag before anything that is missing, and name the nearest."""
        words = list(sys.argv[1:] if args is None else args)
        known = [flag for action in self._actions for flag in action.option_strings]
        for word in takewhile(lambda word: word != "--", words):
            flag = word.split("=")[0]
            if flag.startswith("--") and flag not in known:
                self.error(f"{flag}: no such flag{near_flags(flag, known)}")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one line instead of the usage, which `--help` has."""
        print(f"error: {self.prog}: {message} ({self.prog} --help)", file=sys.stderr, flush=True)
        sys.exit(ConfigError.exit_code)


def near_flags(flag: str, known: Iterable[str]) -> str:
    """Return `"; did you mean --x?"` for the nearest long flags, or an empty string."""
    names = {name.lstrip("-"): name for name in known if name.startswith("--")}
    near = get_close_matches(flag.lstrip("-"), names, n=2)  # dashes would make all alike
    return f"; did you mean {' or '.join(names[n] for n in near)}?" if near else ""


def seed(text: str) -> int:
    """Read a seed, for `type=` of an argument.

    Raises:
        argparse.ArgumentTypeError: Not a whole number in 0 .. 2**31 - 1.
    """
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number in 0 .. {MAX_SEED}")
    return number
