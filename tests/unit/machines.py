"""A machine made of files: what `system/limits.py` takes for the root of this one."""

import importlib
from pathlib import Path

GIB = 2**30
SLICE = "user.slice/user-1000.slice/session-2.scope"
SLURM = "slurm/uid_7/job_42/step_0/task_0"
V2 = "30 24 0:26 {0} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MEMORY = "31 24 0:27 {0} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory"
V1_CPU = "32 24 0:28 {0} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
UNIFIED = "33 24 0:29 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw"
DISK = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro"


class Machine:
    """A directory that `limits` takes for the machine's root."""

    def __init__(self, root: Path, cgroup: str, *mounts: str) -> None:
        self.root = root
        self.write("proc/self/cgroup", cgroup)
        self.write("proc/self/mountinfo", "\n".join([DISK, *mounts]))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def v2(self, group: str, limit: object = "max", used: int = 0, cpu: str = "max 100000") -> None:
        place = f"sys/fs/cgroup/{group}".rstrip("/")
        self.write(f"{place}/memory.max", str(limit))
        self.write(f"{place}/memory.current", str(used))
        self.write(f"{place}/memory.stat", f"anon 5\ninactive_file {GIB}\nactive_file 7")
        self.write(f"{place}/cpu.max", cpu)

    def v1(self, group: str, limit: int = 2**63 - 4096, used: int = 0, quota: int = -1) -> None:
        place = f"sys/fs/cgroup/memory/{group}".rstrip("/")
        self.write(f"{place}/memory.limit_in_bytes", str(limit))
        self.write(f"{place}/memory.usage_in_bytes", str(used))
        self.write(f"{place}/memory.stat", f"cache 3\ntotal_inactive_file {GIB}")
        place = f"sys/fs/cgroup/cpu,cpuacct/{group}".rstrip("/")
        self.write(f"{place}/cpu.cfs_quota_us", str(quota))
        self.write(f"{place}/cpu.cfs_period_us", "100000")


class Bare:
    """A machine without GPU, limits and tools, to which a test adds files and packages."""

    def __init__(self, where: Path) -> None:
        self.site, self.tools = where / "site", where / "bin"  # first to be imported; PATH
        self.machine = Machine(where / "root", f"0::/{SLICE}", V2.format("/"))
        self.machine.write("proc/meminfo", f"MemAvailable: {9 * 2**20} kB")
        self.tools.mkdir()

    def package(self, name: str, **modules: str) -> None:
        for module, text in {"__init__": "", **modules}.items():
            path = self.site / name / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
