"""The doctor: each check for itself, bounded in time, with a fix for whatever is not well."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isaac_hydra_ext.doctor import graphics, machine, software
from isaac_hydra_ext.doctor.command import CHECKS, examine
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.rollout.processes import check_processes
from isaac_hydra_ext.system import limits
from isaac_hydra_ext.system.probing import probe
from isaac_hydra_ext.terminal.findings import Finding, as_text, verdict

from ..machines import GIB, Bare

STANDIN = Path(__file__).resolve().parents[2] / "isaac_standin"
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


# ------------------------------------------------------------------ single checks


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bare:
    bare = Bare(tmp_path)
    monkeypatch.setattr(limits, "ROOT", tmp_path / "root")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.syspath_prepend(str(bare.site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))  # of probes
    monkeypatch.setenv("PATH", str(bare.tools))
    for name in (
        "CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID", "DISPLAY", "ISAAC_PATH",
        "__EGL_VENDOR_LIBRARY_FILENAMES", *graphics.VULKAN_VARIABLES, *software.EULA_VARIABLES,
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return bare


def status(check: Callable[[], Finding]) -> str:
    found = check()
    assert found.name in CHECKS
    assert "\n" not in found.found + found.fix
    assert bool(found.fix) == (found.status != "ok"), found
    return found.status


def test_packages_that_are_missing_or_old(bare: Bare) -> None:
    assert status(software.packages) == "ok"
    wanted = ("numpy>=99.1", "no-such-thing>=1.0", "torch>=2.5.0rc1", "sphinx>=99; extra == 'docs'")
    lines = ["Metadata-Version: 2.1", "Name: isaac_hydra_ext", "Version: 9.9"]
    info = bare.site / "isaac_hydra_ext-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {w}" for w in wanted)]))
    assert status(software.packages) == "fail"
    found = software.packages().found
    assert re.fullmatch(r"numpy \S+ is not >=99.1; no-such-thing is missing", found)


def test_the_bounds_are_those_of_the_package() -> None:
    core = [line for line in software.required() if "extra ==" not in line]
    assert sorted(core) == sorted(software.REQUIRED)


TORCH = """
__version__ = "2.9"
class version:
    cuda = {cuda!r}
class cuda:
    init = lambda: exec({error!r})
    device_count, get_device_name = lambda: 1, lambda index: "H200"
"""


@pytest.mark.parametrize(
    ("gpu", "cuda", "error", "visible", "expected"),
    [
        (False, None, "", None, "ok"),
        (True, None, "", None, "warn"),
        (True, "13.0", "raise OSError('driver too old')", None, "warn"),
        (True, "13.0", "raise OSError('none')", "", "warn"),
        (True, "13.0", "", None, "ok"),
    ],
)
def test_torch_and_the_gpu(
    bare: Bare, monkeypatch: pytest.MonkeyPatch, gpu: bool, cuda: str | None, error: str,
    visible: str | None, expected: str,
) -> None:  # fmt: skip
    bare.package("torch", __init__=TORCH.format(cuda=cuda, error=error))
    if gpu:
        bare.machine.write("proc/driver/nvidia/version", "NVRM version: 570")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert "unset CUDA_VISIBLE_DEVICES" in software.torch().fix
    assert status(software.torch) == expected
    assert ("driver too old" in software.torch().found) == ("driver" in error)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA H200, 570.1, 143771 MiB'", "ok"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "warn"),
    ],
)
def test_the_driver(bare: Bare, script: str, expected: str) -> None:
    assert status(software.driver) == "ok", "no GPU"
    bare.machine.write("dev/nvidia0", "")
    assert status(software.driver) == "warn", "a GPU, and no tool"
    tool = bare.tools / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    assert status(software.driver) == expected
    assert "NVIDIA" in software.driver().found


def test_gymnasium_1_0_is_refused(bare: Bare) -> None:
    bare.package("gymnasium", __init__="__version__ = '1.0.0'")
    assert status(software.gymnasium) == "fail"
    # Another size: within one second that alone tells Python that its cache is stale.
    bare.package("gymnasium", __init__="__version__ = '1.10.1'")
    assert status(software.gymnasium) == "ok"


@pytest.mark.parametrize(("plugins", "expected"), [(0, "fail"), (1, "ok"), (2, "fail")])
def test_the_plugin_is_there_once(bare: Bare, plugins: int, expected: str) -> None:
    names = ["IsaacHydraSearchPathPlugin"] * plugins + ["Another"]
    found = f"[type(name, (), {{}}) for name in {names}]"
    code = f"class Plugins:\n  instance = lambda: Plugins\n  discover = lambda kind: {found}\n"
    bare.package("hydra", __init__="__version__ = '1.3.2'")
    bare.package("hydra/core", plugins=code)
    bare.package("hydra/plugins", search_path_plugin="SearchPathPlugin = None")
    assert status(software.hydra) == expected


@pytest.mark.parametrize(
    ("layers", "modules", "expected", "says"),
    [
        ((), ("newton",), "ok", "not installed"),
        (("common", "v2"), ("isaacsim",), "ok", "2.x (with Kit) at "),
        (("common", "v2"), (), "fail", "2.x needs Isaac Sim"),
        (("common", "ga"), ("newton",), "ok", "env.physics=newton_mjwarp"),
        (("common", "ga"), (), "fail", "3.0 (kit-less)"),
    ],
)
def test_isaac_lab_with_and_without_kit(
    bare: Bare, monkeypatch: pytest.MonkeyPatch, layers: tuple[str, ...],
    modules: tuple[str, ...], expected: str, says: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "path", [str(bare.site)])  # no simulator of this Python's
    for layer in layers:
        shutil.copytree(STANDIN / layer, bare.site, dirs_exist_ok=True)
    for module in modules:
        bare.package(module)
    assert status(software.isaac_lab) == expected
    assert says in software.isaac_lab().found


def test_the_eula(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(bare.site)])
    assert status(software.eula) == "ok", "no Isaac Sim"
    bare.package("isaacsim")
    assert status(software.eula) == "warn"
    monkeypatch.setenv("OMNI_KIT_ACCEPT_EULA", "YES")
    assert status(software.eula) == "ok"


def test_the_asset_root(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    bare.package("isaaclab")
    for root, expected in (
        (str(bare.tools), "ok"), ("/no/such/dir", "warn"), ("http://127.0.0.1:9/assets", "warn")
    ):  # fmt: skip
        monkeypatch.setenv("ISAACSIM_ASSET_ROOT", root)
        assert status(software.asset_root) == expected


@pytest.mark.parametrize(
    ("quota", "workers", "expected"),
    [("max", 7, "ok"), ("450000", 3, "ok"), ("250000", 1, "ok"), ("150000", 1, "warn")],
)
def test_cores_are_those_that_placement_counts(
    bare: Bare, quota: str, workers: int, expected: str
) -> None:
    bare.machine.v2("user.slice", cpu=f"{quota} 100000")
    assert load_run_config({"env": {"id": "Pendulum-v1"}}).num_workers == workers
    assert status(machine.cores) == expected
    assert f"rollout.num_workers=auto is {workers} on the CPU" in machine.cores().found


def test_memory_is_what_a_run_is_refused_by(bare: Bare) -> None:
    assert status(machine.memory) == "ok"
    bare.machine.v2("user.slice", 6 * GIB, 6 * GIB)
    assert status(machine.memory) == "warn"
    assert machine.memory().found == "1.0 GiB available, the control group allows 6.0 GiB"
    config = load_run_config({"env": {"id": "Pendulum-v1"}, "rollout": {"num_workers": 7}})
    with pytest.raises(ConfigError, match="available are 1.0 GiB"):
        check_processes(config)


def test_shared_memory_without_memfd(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(machine.shared_memory) == "ok"
    monkeypatch.delattr(os, "memfd_create")
    assert status(machine.shared_memory) == "fail", "no /dev/shm either"


@pytest.mark.parametrize(
    ("limit", "most", "expected"),
    [("NOFILE", 4096, "ok"), ("NOFILE", 64, "warn"), ("AS", 2**32, "warn")],
)
def test_ulimits(limit: str, most: int, expected: str) -> None:
    code = (
        "import json, resource; from isaac_hydra_ext.doctor.machine import ulimits\n"
        f"resource.setrlimit(resource.RLIMIT_{limit}, ({most}, {most}))\n"
        "print(json.dumps(vars(ulimits())))"
    )
    found = probe(code)
    assert (found["status"], bool(found["fix"])) == (expected, expected != "ok")


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
    bare: Bare, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    there = {"EGL": "libc.so.6", "OSMesa": "libnosuch.so.9"}  # one loads, the other does not
    monkeypatch.setattr("ctypes.util.find_library", there.get)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert status(graphics.mujoco_gl) == expected


def test_graphics_drivers(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    bare.machine.write("dev/nvidia0", "")
    bare.package("isaacsim")
    assert (status(graphics.egl), status(graphics.vulkan)) == ("warn", "warn")
    bare.machine.write("usr/share/glvnd/egl_vendor.d/10_nvidia.json", "{}")
    bare.machine.write("etc/vulkan/icd.d/nvidia_icd.json", "{}")
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
    bare: Bare, monkeypatch: pytest.MonkeyPatch, visible: str | None, renderer: str | None,
    expected: str,
) -> None:  # fmt: skip
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("MUJOCO_EGL_DEVICE_ID", renderer)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert status(graphics.visible_devices) == "ok", "no GPU"
    bare.machine.write("dev/nvidia0", "")
    assert status(graphics.visible_devices) == expected
