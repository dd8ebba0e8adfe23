"""`env.imports`: the user's packages, imported where the simulation is hosted."""

import importlib
from collections.abc import Sequence

from isaac_hydra_ext.errors import EnvNotFoundError


def import_packages(imports: Sequence[str]) -> None:
    """Import each `package.module`; of `package.module:function` also call the function.

    Raises:
        EnvNotFoundError: Names what cannot be imported, and why.
    """
    for name in imports:
        module, _, function = name.partition(":")
        try:
            found = importlib.import_module(module)
            if function:
                getattr(found, function)()
        except (ImportError, AttributeError) as e:
            raise EnvNotFoundError(f"env.imports: cannot import {name!r} ({e})") from e
