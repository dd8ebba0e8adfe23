"""Cores, memory, ulimits, and where runs are written. Runs in the process of `appo doctor`.

What a run would choose is asked of what chooses it: placement, and the reader of control groups.
"""

import os
import resource
import shutil
import tempfile
from pathlib import Path

from isaac_hydra_ext.config.placement import auto_workers, available_cores
from isaac_hydra_ext.system import limits
from isaac_hydra_ext.terminal.findings import Finding

GIB = 2**30
MIN_MEMORY = 4 * GIB
MIN_DISK = GIB
MIN_SHM = 256 * 2**20
MIN_FILES = 256  # a run of two workers needs about 60; simulators open more


def cores() -> Finding:
    """Count the cores this process may use, and how many workers a CPU simulation then gets."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{seen} of {os.cpu_count()} usable"
    if (quota := limits.cpu_quota()) is not None:
        text += f", the control group allows the time of {quota:g}"
    text += f"; rollout.num_workers=auto is {auto_workers(False, 'cpu')} on the CPU"
    if available_cores() == 1:
        fix = "collect in the learner's process: rollout.num_workers=0"
        return Finding("cores", "warn", text, fix)
    return Finding("cores", "ok", text)


def memory() -> Finding:
    """Look at what can still be allocated, by the machine and by the process's control groups."""
    free = limits.available_memory()
    if free is None:
        return Finding("memory", "warn", "this system does not say", "look at it by hand")
    text = f"{free / GIB:.1f} GiB available"
    if group := limits.memory_limit():
        text += f", the control group allows {group.limit / GIB:.1f} GiB"
    if free < MIN_MEMORY:
        fix = "lower rollout.num_workers (each costs 0.5 GiB and its simulation), or add memory"
        return Finding("memory", "warn", text, fix)
    return Finding("memory", "ok", text)


def shared_memory() -> Finding:
    """Make a memfd; where there is none the rollout buffer must fit into /dev/shm."""
    shm = limits.machine_file("/dev/shm")
    size = shutil.disk_usage(shm).free if shm.is_dir() else 0
    text = f"/dev/shm has {size / 2**20:,.0f} MiB free"
    try:
        os.close(os.memfd_create("doctor"))
    except (OSError, AttributeError) as e:
        fix = "docker run --shm-size=8g, or a kernel with memfd_create"
        status = "fail" if size < MIN_SHM else "warn"
        return Finding("shared memory", status, f"no memfd ({e}); {text}", fix)
    return Finding("shared memory", "ok", f"memfd works; {text}, which is not used then")


def ulimits() -> Finding:
    """Look at ulimits that a run may hit."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    address = resource.getrlimit(resource.RLIMIT_AS)[0]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    text = f"{_limit(files)} open files, {_limit(processes)} processes"
    if 0 <= files < MIN_FILES:
        return Finding("ulimits", "warn", text, "ulimit -n 4096")
    if address != resource.RLIM_INFINITY:
        found = f"{text}, address space of {address / GIB:.1f} GiB"
        return Finding("ulimits", "warn", found, "ulimit -v unlimited: CUDA and Warp reserve more")
    return Finding("ulimits", "ok", text)


def write_access() -> Finding:
    """Write a file where runs go by default, without making the directory."""
    place = Path.cwd() / "logs" / "appo"
    nearest = next(p for p in (place, *place.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest) as f:
            f.write(b"x")
    except OSError as e:
        fix = "go to a directory of yours, or set experiment.output_dir"
        return Finding("write access", "fail", f"{nearest}: {e.strerror}", fix)
    free = shutil.disk_usage(nearest).free
    text = f"{nearest}, {free / GIB:,.1f} GiB free"
    if free < MIN_DISK:
        fix = "make room, or set experiment.output_dir; checkpoint.keep_last limits a run"
        return Finding("write access", "warn", text, fix)
    return Finding("write access", "ok", text)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value:,}"
