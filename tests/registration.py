"""A package that is installed, as far as `importlib.metadata` can tell."""

from pathlib import Path


def register_package(site: Path, name: str, entry_points: str) -> None:
    """Write what pip writes beside a package of that name: its `.dist-info`.

    Args:
        site: The directory that is to be on the path.
        name: Of the package; its modules are the caller's.
        entry_points: The content of `entry_points.txt`.
    """
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
