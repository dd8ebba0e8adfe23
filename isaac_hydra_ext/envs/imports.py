"""`env.imports`: the user's packages, imported where the simulation is hosted."""

from collections.abc import Sequence

from isaac_hydra_ext.errors import EnvNotFoundError
from isaac_hydra_ext.system.entry_points import import_module


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
            found = import_module(module)
            if function:
                called = getattr(found, function)
                if not callable(called):
                    kind = type(called).__name__
                    raise EnvNotFoundError(f"{key}: {name!r} is a {kind}, not a function")
                called()
        except (ImportError, AttributeError) as e:
            raise EnvNotFoundError(f"{key}: cannot import {name!r} ({e})") from e
