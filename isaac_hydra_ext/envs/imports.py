"""`env.imports`: the user's packages, imported where the simulation is hosted."""

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from isaac_hydra_ext.errors import EnvNotFoundError


def import_packages(imports: Sequence[str], key: str = "env.imports") -> None:
    """Import each `package.module`; of `package.module:function` also call the function.

    Args:
        imports: As `env.imports` has them.
        key: That names them, for the message.

    Raises:
        EnvNotFoundError: Names what cannot be imported, and why.
    """
    for name in imports:
        module, _, function = name.partition(":")
        try:
            found = _import(module)
            if function:
                called = getattr(found, function)
                if not callable(called):
                    kind = type(called).__name__
                    raise EnvNotFoundError(f"{key}: {name!r} is a {kind}, not a function")
                called()
        except (ImportError, AttributeError) as e:
            raise EnvNotFoundError(f"{key}: cannot import {name!r} ({e})") from e


def _import(module: str) -> ModuleType:
    """Import a module, also one that lies in the working directory, as `python -m` would."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        here = os.getcwd()
        if e.name != module.partition(".")[0] or here in sys.path:
            raise
        sys.path.append(here)  # last: it hides nothing that is installed
        importlib.invalidate_caches()
        return importlib.import_module(module)
