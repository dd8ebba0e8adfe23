"""Stand-in: writes a cfg as YAML."""

import yaml


def dump_yaml(filename: str, data: object) -> None:
    """Write `data.to_dict()`."""
    with open(filename, "w") as file:
        yaml.safe_dump(data.to_dict(), file, default_flow_style=False, sort_keys=False)
