"""What this process may use: memory and processor time, in all control groups that it is in.

The one reader of cgroups. Needs the standard library alone and runs in any process. A process is
in one group of each hierarchy (/proc/self/cgroup), the hierarchies are mounted somewhere
(/proc/self/mountinfo), and each group's limit holds for all below it: under Slurm or systemd the
limit is in the process's own group or a few above it, in a container it is at the mount's root.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")  # of the machine's own files; a test puts another machine's there
NO_LIMIT = 2**60  # version 1 writes a number of about 2^63 where there is none
VERSION_2 = ""  # its one hierarchy has no name


@dataclass(frozen=True)
class MemoryLimit:
    """The tightest of the groups' limits.

    Attributes:
        limit: What the group may hold [bytes].
        free: What of it can still be allocated: cached files are given back [bytes].
    """

    limit: int
    free: int


def machine_file(path: str) -> Path:
    """Return where a file of the machine, named from `/`, is looked for."""
    return ROOT / path.lstrip("/")


def available_memory() -> int | None:
    """Return what can still be allocated without swapping [bytes]; None where nobody says."""
    room = []
    for line in _read(machine_file("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            room.append(int(line.split()[1]) * 1024)
    if group := memory_limit():
        room.append(group.free)
    return min(room) if room else None


def memory_limit() -> MemoryLimit | None:
    """Return the limit that leaves the least; None where no group has one."""
    found = []
    for hierarchy, limit, used, cached in (
        (VERSION_2, "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in _own_groups(hierarchy):
            most = _number(group / limit)
            if most is not None and most < NO_LIMIT:
                stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
                free = most - (_number(group / used) or 0) + int(stat.get(cached, 0))
                found.append(MemoryLimit(most, max(0, free)))
    return min(found, key=lambda limit: limit.free, default=None)


def cpu_quota() -> float | None:
    """Return how many cores' time the groups allow [cores]; None where no group has a limit."""
    shares = []
    for group in _own_groups(VERSION_2):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():  # else "max"
            shares.append(int(quota) / int(period))
    for group in _own_groups("cpu"):
        most, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if most is not None and period_us:  # else -1
            shares.append(most / period_us)
    return min(shares, default=None)


def _own_groups(hierarchy: str) -> Iterator[Path]:
    """Yield the directory of this process's group in a hierarchy, and of all above it.

    Args:
        hierarchy: A controller of version 1, or `VERSION_2`.
    """
    own = _paths().get(hierarchy)
    for mounted, place in _mounts(hierarchy):
        if own is None:
            return
        below: tuple[str, ...] = ()  # a group that cannot be seen from here: its container's root
        with contextlib.suppress(ValueError):
            below = PurePosixPath(own).relative_to(mounted).parts
        for depth in range(len(below), -1, -1):
            yield place.joinpath(*below[:depth])


def _paths() -> dict[str, str]:
    """Return this process's group in each hierarchy."""
    paths = {}
    for line in _read(machine_file("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _mounts(hierarchy: str) -> Iterator[tuple[str, Path]]:
    """Yield what of a hierarchy is mounted, and where."""
    for line in _read(machine_file("/proc/self/mountinfo")).splitlines():
        about, _, filesystem = line.partition(" - ")
        _, _, _, mounted, place, *_ = about.split(" ")
        kind, _, options = filesystem.split(" ", 2)
        wanted = kind == "cgroup2" if hierarchy == VERSION_2 else kind == "cgroup"
        if wanted and (hierarchy == VERSION_2 or hierarchy in options.split(",")):
            yield mounted, machine_file(place)


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # not on this system, or not for us
        return ""
