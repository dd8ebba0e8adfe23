"""The limits of control groups, on machines made of files."""

from pathlib import Path

import pytest

from isaac_hydra_ext.system import limits
from isaac_hydra_ext.system.limits import MemoryLimit

from ..machines import GIB, SLICE, SLURM, UNIFIED, V1_CPU, V1_MEMORY, V2, Machine


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "ROOT", tmp_path)
    return tmp_path


def test_version_2_in_a_slice_has_the_limits_of_its_own_group(root: Path) -> None:
    machine = Machine(root, f"0::/{SLICE}", V2.format("/"))
    machine.v2(SLICE, 8 * GIB, 3 * GIB, "250000 100000")
    assert limits.memory_limit() == MemoryLimit(8 * GIB, 6 * GIB)
    assert limits.cpu_quota() == 2.5


def test_the_tightest_of_nested_slices_holds(root: Path) -> None:
    machine = Machine(root, f"0::/{SLICE}", V2.format("/"))
    machine.v2(SLICE, 8 * GIB, 1 * GIB, "400000 100000")
    machine.v2("user.slice/user-1000.slice", 9 * GIB, 8 * GIB, "max 100000")
    machine.v2("user.slice", "max", 50 * GIB, "300000 200000")
    machine.v2("user.slice/user-1001.slice", 2, 1, "1 100000")  # somebody else's
    assert limits.memory_limit() == MemoryLimit(9 * GIB, 2 * GIB), "the least is left above"
    assert limits.cpu_quota() == 1.5


def test_groups_without_a_limit_and_a_used_up_one(root: Path) -> None:
    machine = Machine(root, f"0::/{SLICE}", V2.format("/"))
    machine.v2(SLICE)
    assert limits.memory_limit() is None
    assert limits.cpu_quota() is None
    machine.v2("user.slice", 4 * GIB, 6 * GIB)
    assert limits.memory_limit() == MemoryLimit(4 * GIB, 0)


@pytest.mark.parametrize(("cgroup", "mounted"), [("/", "/"), ("/docker/ab", "/docker/ab")])
def test_a_container_finds_its_limits_at_the_mounts_root(
    root: Path, cgroup: str, mounted: str
) -> None:
    """With a cgroup namespace of its own, and without."""
    machine = Machine(root, f"0::{cgroup}", V2.format(mounted))
    machine.v2("", 8 * GIB, 3 * GIB, "150000 100000")
    assert limits.memory_limit() == MemoryLimit(8 * GIB, 6 * GIB)
    assert limits.cpu_quota() == 1.5


@pytest.mark.parametrize("cgroup", ["/../../other", "/docker/ab/gone"])
def test_a_group_that_cannot_be_seen_leaves_the_mounts_root(root: Path, cgroup: str) -> None:
    machine = Machine(root, f"0::{cgroup}", V2.format("/"))
    machine.v2("", 8 * GIB, 3 * GIB, "150000 100000")
    assert limits.memory_limit() == MemoryLimit(8 * GIB, 6 * GIB)
    assert limits.cpu_quota() == 1.5


def test_version_1_under_slurm(root: Path) -> None:
    cgroup = f"9:memory:/{SLURM}\n4:cpu,cpuacct:/{SLURM}\n1:name=systemd:/system.slice"
    machine = Machine(root, cgroup, V1_MEMORY.format("/"), V1_CPU.format("/"))
    machine.v1("")
    machine.v1(SLURM, quota=800000)
    machine.v1("slurm/uid_7/job_42", 16 * GIB, 5 * GIB, quota=300000)
    assert limits.memory_limit() == MemoryLimit(16 * GIB, 12 * GIB)
    assert limits.cpu_quota() == 3.0


def test_version_1_in_a_container_that_sees_the_hosts_names(root: Path) -> None:
    cgroup = "9:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab"
    mounts = [V1_MEMORY.format("/docker/ab"), V1_CPU.format("/docker/ab")]
    Machine(root, cgroup, *mounts).v1("", 16 * GIB, 5 * GIB, quota=50000)
    assert limits.memory_limit() == MemoryLimit(16 * GIB, 12 * GIB)
    assert limits.cpu_quota() == 0.5


def test_version_1_without_limits(root: Path) -> None:
    mounts = [V1_MEMORY.format("/"), V1_CPU.format("/")]
    Machine(root, "9:memory:/a\n4:cpu,cpuacct:/a", *mounts).v1("a")
    assert limits.memory_limit() is None
    assert limits.cpu_quota() is None


def test_a_hybrid_has_memory_in_one_version_and_time_in_the_other(root: Path) -> None:
    machine = Machine(root, "9:memory:/a/b\n0::/c", V1_MEMORY.format("/"), UNIFIED)
    machine.v1("a", 16 * GIB, 5 * GIB)
    machine.write("sys/fs/cgroup/unified/c/cpu.max", "700000 100000")
    assert limits.memory_limit() == MemoryLimit(16 * GIB, 12 * GIB)
    assert limits.cpu_quota() == 7.0


def test_where_there_is_nothing_to_read(root: Path) -> None:
    assert limits.memory_limit() is None
    assert limits.cpu_quota() is None
    assert limits.available_memory() is None
    Machine(root, f"0::/{SLICE}", V2.format("/"))  # its files are not for us
    assert limits.memory_limit() is None
    assert limits.cpu_quota() is None


def test_what_is_available_is_the_lesser_of_machine_and_group(root: Path) -> None:
    machine = Machine(root, f"0::/{SLICE}", V2.format("/"))
    machine.write("proc/meminfo", f"MemTotal: {64 * 2**20} kB\nMemAvailable: {32 * 2**20} kB")
    assert limits.available_memory() == 32 * GIB
    machine.v2("user.slice", 40 * GIB)
    assert limits.available_memory() == 32 * GIB
    machine.v2("user.slice", 20 * GIB, 5 * GIB)
    assert limits.available_memory() == 16 * GIB


def test_this_machine_says_something() -> None:
    available = limits.available_memory()
    assert available is not None and 0 < available < 2**50
    assert limits.cpu_quota() is None or limits.cpu_quota() > 0  # type: ignore[operator]
