"""Stand-in: dataclasses whose mutable defaults are copied, as Isaac Lab's configclass does."""

import copy
import dataclasses


def configclass(cls: type) -> type:
    """Make a dataclass; a subclass's plain assignments are fields too."""
    annotations = cls.__dict__.get("__annotations__", {})
    for name, value in list(vars(cls).items()):
        if name.startswith("_") or callable(value) or isinstance(value, (property, staticmethod)):
            continue
        annotations.setdefault(name, type(value))
    cls.__annotations__ = annotations
    for name in annotations:
        value = cls.__dict__[name]
        if value is dataclasses.MISSING or type(value).__hash__ is None:  # unset, or mutable
            setattr(cls, name, dataclasses.field(default_factory=lambda v=value: copy.deepcopy(v)))
    cls.to_dict = _to_dict
    return dataclasses.dataclass(cls)


def _to_dict(self: object) -> dict:
    return {k: _plain(v) for k, v in vars(self).items()}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return _to_dict(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, type(dataclasses.MISSING)):
        return {}  # as the real one: whatever has a __dict__ becomes one
    known = isinstance(value, (str, int, float, type(None)))
    return value if known else str(value)
