"""Asynchronous PPO for NVIDIA Isaac Lab, mjlab and Gymnasium, configured with Hydra.

This module imports nothing: Hydra's plugin scan passes through it in unrelated applications. The
public names are imported where they are asked for; `__init__.pyi` tells type checkers of them.
"""

__version__ = "0.2.0"
_PUBLIC = {
    "load_policy": "isaac_hydra_ext.evaluation.loaded_policy",
    "train": "isaac_hydra_ext.appo_runner",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
