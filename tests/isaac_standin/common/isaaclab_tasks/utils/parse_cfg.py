"""Stand-in: cfgs by their entry points."""

import importlib

import gymnasium as gym


def load_cfg_from_registry(task_name: str, entry_point_key: str) -> object:
    """Load `module:Class` and instantiate it."""
    module, name = gym.spec(task_name).kwargs[entry_point_key].split(":")
    print(f"[INFO]: Parsing configuration from: {module}:{name}")
    return getattr(importlib.import_module(module), name)()
