"""The doctor: each check for itself, bounded in time, with a fix for whatever is not well."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from isaac_hydra_ext.doctor import graphics, machine, software
from isaac_hydra_ext.doctor.command import CHECKS, as_text, examine, verdict
from isaac_hydra_ext.doctor.finding import Finding
from isaac_hydra_ext.system.probing import ProbeError, probe

GOOD, BAD = Finding("a", "ok", "well"), Finding("b", "fail", "ill", "rest")


def doctor(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([p for p in (variables.pop("first", ""), *sys.path) if p])
    return subprocess.run(
        [sys.executable, "-m", "isaac_hydra_ext.doctor", *words],
        cwd=cwd, env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_a_check_that_raises_is_a_warning_and_the_others_go_on() -> None:
    def broken() -> Finding:
        raise OSError("no\nsuch device")

    found = examine({"one": lambda: GOOD, "two": broken, "three": lambda: BAD})
    assert found[0] == GOOD
    assert (found[1].name, found[1].status) == ("two", "warn")
    assert found[1].found == "cannot be checked: OSError: no such device"
    assert found[2] == BAD
    assert verdict(found) == "fail"
    assert verdict(found[:2]) == "warn"
    assert verdict([GOOD]) == "ok"


def test_lines_fit_together_and_carry_their_fix() -> None:
    assert as_text([GOOD, BAD]).splitlines() == [
        "ok    a              well",
        "fail  b              ill",
        "                     -> rest",
        "1 ok, 0 warn, 1 fail",
    ]
    long = Finding("c", "warn", "words " * 12, "more " * 12)
    assert as_text([long], 60).splitlines()[:4] == [
        "warn  c              words words words words words words",
        "                     words words words words words words",
        "                     -> more more more more more more more",
        "                        more more more more more",
    ]


def test_what_hangs_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    note = tmp_path / "child"
    code = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(ProbeError, match="no answer within 10 s"):
        probe(code, timeout_s=10.0)
    deadline = time.monotonic() + 60
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(int(note.read_text())).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "ended without a word"),
    ],
)
def test_a_probe_says_what_happened(code: str, says: str) -> None:
    with pytest.raises(ProbeError, match=says):
        probe(code)


def test_a_probe_answers_whatever_else_is_printed() -> None:
    assert probe("print('Kit says hello'); print('[1, 2]')") == [1, 2]


def test_a_broken_environment_is_told_line_by_line(tmp_path: Path) -> None:
    """No torch, no Hydra, a crashing Gymnasium, a directory that cannot be written."""
    for name, body in {
        "torch": "raise ImportError('libcudart.so.99: cannot open shared object file')",
        "hydra": "raise ImportError('broken install')",
        "gymnasium": "import os; os.abort()",
    }.items():
        (tmp_path / "stubs" / name).mkdir(parents=True)
        (tmp_path / "stubs" / name / "__init__.py").write_text(body)
    done = doctor("--json", cwd=Path("/proc"), first=str(tmp_path / "stubs"))
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert said["status"] == "fail"
    checks = {check["name"]: check for check in said["checks"]}
    assert list(checks) == list(CHECKS)
    assert "libcudart.so.99" in checks["torch"]["found"]
    assert "broken install" in checks["hydra"]["found"]
    assert "crashed with SIGABRT" in checks["gymnasium"]["found"]
    for name in ("torch", "hydra", "gymnasium", "write access"):
        assert checks[name]["status"] == "fail", name
    assert all(check["fix"] for check in checks.values() if check["status"] != "ok")
    assert checks["python"]["status"] == "ok"


def test_this_machine_can_run_and_nothing_is_left(tmp_path: Path) -> None:
    done = doctor(cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].endswith(", 0 fail")
    assert not list(tmp_path.iterdir())


def test_nothing_but_the_standard_library_is_imported(tmp_path: Path) -> None:
    code = """
import sys, isaac_hydra_ext.doctor.command
ours = {m.split(".")[0] for m in sys.modules} - set(sys.stdlib_module_names)
print(sorted(m for m in ours if not m.startswith("_")))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "['isaac_hydra_ext']", done.stderr


def status(check: Callable[[], Finding]) -> str:
    found = check()
    assert found.name in CHECKS
    assert "\n" not in found.found + found.fix
    assert bool(found.fix) == (found.status != "ok"), found
    return found.status


def test_packages_that_are_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(software.packages) == "ok"
    monkeypatch.setattr(software, "required", lambda: ["numpy>=99.1", "no-such-thing>=1.0"])
    assert status(software.packages) == "fail"
    found = software.packages().found
    assert "is older than 99.1" in found
    assert "no-such-thing is missing" in found


@pytest.mark.parametrize(
    ("older", "newer"),
    [("2.5", "2.5.1+cpu"), ("0.29", "1.0a1"), ("2.9.1", "2.10.0"), ("1.3.2", "1.4.0rc3")],
)
def test_versions_are_compared_as_numbers(older: str, newer: str) -> None:
    assert software.numbers(older) < software.numbers(newer)


def test_the_bounds_are_those_of_the_package() -> None:
    assert sorted(software.required()) == sorted(software.REQUIRED)


@pytest.mark.parametrize(
    ("gpu", "probed", "visible", "expected"),
    [
        (False, {"cuda": None, "gpus": [], "error": ""}, None, "ok"),
        (True, {"cuda": None, "gpus": [], "error": ""}, None, "warn"),
        (True, {"cuda": "13.0", "gpus": [], "error": "driver too old"}, None, "warn"),
        (True, {"cuda": "13.0", "gpus": [], "error": "none"}, "", "warn"),
        (True, {"cuda": "13.0", "gpus": ["H200"], "error": ""}, None, "ok"),
    ],
)
def test_torch_and_the_gpu(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, probed: dict, visible: str | None, expected: str
) -> None:
    monkeypatch.setattr(software, "has_nvidia", lambda: gpu)
    monkeypatch.setattr(software, "probe", lambda code: {"version": "2.9", **probed})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert "unset CUDA_VISIBLE_DEVICES" in software.torch().fix
    assert status(software.torch) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA H200, 570.1, 143771 MiB'", "ok"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "warn"),
    ],
)
def test_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, expected: str
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert status(software.driver) == expected
    assert "NVIDIA" in software.driver().found
    tool.unlink()
    monkeypatch.setattr(software, "has_nvidia", lambda: True)
    assert status(software.driver) == "warn"


def test_gymnasium_1_0_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "probe", lambda code: "1.0.0")
    assert status(software.gymnasium) == "fail"


@pytest.mark.parametrize(("plugins", "expected"), [(0, "fail"), (1, "ok"), (2, "fail")])
def test_the_plugin_is_there_once(
    monkeypatch: pytest.MonkeyPatch, plugins: int, expected: str
) -> None:
    names = ["IsaacHydraSearchPathPlugin"] * plugins + ["Another"]
    monkeypatch.setattr(software, "probe", lambda code: {"version": "1.3.2", "plugins": names})
    assert status(software.hydra) == expected


def isaac(monkeypatch: pytest.MonkeyPatch, generation: str, *modules: str) -> Finding:
    monkeypatch.delenv("ISAAC_PATH", raising=False)
    monkeypatch.setattr(software, "_place", lambda m: f"/at/{m}" if m in modules else "")
    monkeypatch.setattr(software, "probe", lambda code: generation)
    status(software.isaac_lab)
    return software.isaac_lab()


def test_isaac_lab_with_and_without_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("isaaclab", "isaaclab_tasks")
    assert isaac(monkeypatch, "", "newton").found.startswith("not installed")
    assert isaac(monkeypatch, "2.x", *both, "isaacsim").found == "2.x (with Kit) at /at/isaaclab"
    assert isaac(monkeypatch, "2.x", *both).status == "fail"
    assert "env.physics=newton_mjwarp" in isaac(monkeypatch, "3.0", *both, "newton").found
    assert isaac(monkeypatch, "3.0", *both).status == "fail"


def test_the_eula(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in software.EULA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(software, "has_kit", lambda: True)
    assert status(software.eula) == "warn"
    monkeypatch.setenv("OMNI_KIT_ACCEPT_EULA", "YES")
    assert status(software.eula) == "ok"


def test_the_asset_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(software, "_place", lambda m: "/at/isaaclab")
    monkeypatch.setenv("ISAACSIM_ASSET_ROOT", str(tmp_path))
    assert status(software.asset_root) == "ok"
    monkeypatch.setenv("ISAACSIM_ASSET_ROOT", str(tmp_path / "nowhere"))
    assert status(software.asset_root) == "warn"
    monkeypatch.setenv("ISAACSIM_ASSET_ROOT", "http://127.0.0.1:9/assets")
    assert status(software.asset_root) == "warn"


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", "ok"), ("50000 100000", "warn"), ("", "ok")]
)
def test_cores_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, expected: str
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    (tmp_path / "cpu.max").write_text(quota)
    assert status(machine.cores) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert status(machine.cores) == "warn"


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemAvailable: {9 * 2**20} kB\n")
    assert status(machine.memory) == "ok"
    (tmp_path / "memory.max").write_text(str(6 * machine.GIB))
    (tmp_path / "memory.current").write_text(str(5 * machine.GIB))
    assert status(machine.memory) == "warn"
    assert "1.0 GiB of the container's 6.0" in machine.memory().found


def test_shared_memory_without_memfd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert status(machine.shared_memory) == "ok"
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(machine, "SHM", tmp_path / "none")
    assert status(machine.shared_memory) == "fail"


@pytest.mark.parametrize(
    ("files", "address", "expected"), [(4096, -1, "ok"), (64, -1, "warn"), (4096, 2**32, "warn")]
)
def test_ulimits(monkeypatch: pytest.MonkeyPatch, files: int, address: int, expected: str) -> None:
    values = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_AS: address}
    monkeypatch.setattr(resource, "getrlimit", lambda what: (values.get(what, -1), -1))
    assert status(machine.limits) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MUJOCO_GL": "elg"}, "warn"),
        ({"MUJOCO_GL": "disable"}, "ok"),
        ({"MUJOCO_GL": "egl"}, "ok"),
        ({"MUJOCO_GL": "osmesa"}, "warn"),
        ({"MUJOCO_GL": ""}, "warn"),
        ({"MUJOCO_GL": "", "DISPLAY": ":0"}, "ok"),
    ],
)
def test_what_mujoco_renders_with(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(graphics, "_loads", lambda library: library == "EGL")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert status(graphics.mujoco_gl) == expected


def test_graphics_drivers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("__EGL_VENDOR_LIBRARY_FILENAMES", *graphics.VULKAN_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(graphics, "EGL_VENDORS", (tmp_path,))
    monkeypatch.setattr(graphics, "VULKAN_ICDS", (tmp_path,))
    monkeypatch.setattr(graphics, "has_nvidia", lambda: True)
    monkeypatch.setattr(graphics, "has_kit", lambda: True)
    assert (status(graphics.egl), status(graphics.vulkan)) == ("warn", "warn")
    (tmp_path / "10_nvidia.json").touch()
    assert (status(graphics.egl), status(graphics.vulkan)) == ("ok", "ok")
    monkeypatch.setenv("VK_ICD_FILENAMES", "/no/such.json")
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/no/such.json")
    assert (status(graphics.egl), status(graphics.vulkan)) == ("warn", "warn")


def test_paths_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:/no/such/lib")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/no/such/dir")
    assert status(graphics.library_paths) == "warn"
    assert "no /no/such/lib" in graphics.library_paths().found
    assert status(graphics.runtime_dir) == "warn"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert status(graphics.runtime_dir) == "ok"


@pytest.mark.parametrize(
    ("visible", "renderer", "expected"),
    [
        (None, None, "ok"),
        ("0,1", None, "ok"),
        ("2,3", None, "warn"),
        ("2", "2", "ok"),
        ("2", "0", "warn"),
        ("", None, "warn"),
    ],
)
def test_cudas_numbering_and_the_renderers(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, renderer: str | None, expected: str
) -> None:
    monkeypatch.setattr(graphics, "has_nvidia", lambda: True)
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("MUJOCO_EGL_DEVICE_ID", renderer)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert status(graphics.visible_devices) == expected
