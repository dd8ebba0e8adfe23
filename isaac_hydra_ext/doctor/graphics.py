"""What videos and cameras need: EGL, Vulkan, library paths. Runs in the process of `appo doctor`.

Training needs none of it, so nothing here is worse than a warning.
"""

import ctypes
import ctypes.util
import os
from pathlib import Path

from isaac_hydra_ext.doctor.software import has_kit, has_nvidia
from isaac_hydra_ext.system.limits import machine_file
from isaac_hydra_ext.terminal.findings import Finding

EGL_VENDORS = ("/usr/share/glvnd/egl_vendor.d", "/etc/glvnd/egl_vendor.d")
VULKAN_ICDS = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d")
VULKAN_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")  # the second is the older name
MUJOCO_BACKENDS = ("egl", "osmesa", "glfw", "disable", "disabled", "off", "false", "0", "")
CAPABILITIES = "start the container with NVIDIA_DRIVER_CAPABILITIES=all"


def mujoco_gl() -> Finding:
    """Load the library that MuJoCo renders with."""
    asked = os.environ.get("MUJOCO_GL", "").lower()
    if asked not in MUJOCO_BACKENDS:
        fix = "export MUJOCO_GL=egl (or osmesa, glfw, disable)"
        return Finding("mujoco gl", "warn", f"MUJOCO_GL={asked}: no such backend", fix)
    egl, osmesa = _loads("EGL"), _loads("OSMesa")
    text = f"MUJOCO_GL={asked or '(not set)'}, EGL {_word(egl)}, OSMesa {_word(osmesa)}"
    missing = {"egl": not egl, "osmesa": not osmesa}
    if missing.get(asked, asked == "" and not egl and not osmesa):
        fix = (
            "apt-get install libegl1 (GPU) or libosmesa6 (CPU), then export MUJOCO_GL=egl or osmesa"
        )
        return Finding("mujoco gl", "warn", f"{text}: mjlab cannot render", fix)
    if asked in ("", "glfw") and "DISPLAY" not in os.environ:
        fix = f"export MUJOCO_GL={'egl' if egl else 'osmesa'}, where videos are wanted"
        return Finding("mujoco gl", "warn", f"{text}, and no display to open windows on", fix)
    return Finding("mujoco gl", "ok", text)


def egl() -> Finding:
    """Find GLVND's vendor files: without NVIDIA's, EGL renders on the CPU or not at all."""
    override = os.environ.get("__EGL_VENDOR_LIBRARY_FILENAMES", "")
    if absent := _absent(override):
        fix = "unset __EGL_VENDOR_LIBRARY_FILENAMES, or name files that exist"
        return Finding("egl", "warn", f"__EGL_VENDOR_LIBRARY_FILENAMES: no {absent}", fix)
    vendors = _descriptions(EGL_VENDORS)
    vendors = [Path(p).name for p in override.split(":")] if override else vendors
    if has_nvidia() and not any("nvidia" in name for name in vendors):
        return Finding(
            "egl", "warn", f"vendors: {_names(vendors)}; NVIDIA's is missing", CAPABILITIES
        )
    return Finding("egl", "ok", f"vendors: {_names(vendors)}")


def vulkan() -> Finding:
    """Find the Vulkan driver's file, which Isaac Sim's renderer goes by."""
    override = next((os.environ[v] for v in VULKAN_VARIABLES if os.environ.get(v)), "")
    if absent := _absent(override):
        fix = f"unset {' and '.join(VULKAN_VARIABLES)}, or name files that exist"
        return Finding("vulkan", "warn", f"the ICD file {absent} does not exist", fix)
    icds = _descriptions(VULKAN_ICDS)
    icds = [Path(p).name for p in override.split(":")] if override else icds
    if has_kit() and not any("nvidia" in name for name in icds):
        return Finding("vulkan", "warn", f"ICDs: {_names(icds)}; NVIDIA's is missing", CAPABILITIES)
    if not has_kit():
        return Finding("vulkan", "ok", f"ICDs: {_names(icds)}; only Isaac Sim needs one")
    return Finding("vulkan", "ok", f"ICDs: {_names(icds)}")


def library_paths() -> Finding:
    """Look for directories that variables name and that do not exist."""
    wrong = []
    for variable in ("LD_LIBRARY_PATH", "PYTHONPATH"):
        parts = [p for p in os.environ.get(variable, "").split(":") if p]
        wrong += [f"{variable}: no {p}" for p in parts if not Path(p).exists()]
    if wrong:
        return Finding("library paths", "warn", "; ".join(wrong), "take them out, or mount them")
    return Finding("library paths", "ok", "all named directories exist")


def runtime_dir() -> Finding:
    """Look at XDG_RUNTIME_DIR, where graphics drivers put their sockets."""
    place = os.environ.get("XDG_RUNTIME_DIR")
    if not place:
        return Finding("xdg", "ok", "XDG_RUNTIME_DIR is not set; only windows need it")
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        fix = "export XDG_RUNTIME_DIR=$(mktemp -d)"
        return Finding("xdg", "warn", f"XDG_RUNTIME_DIR={place} cannot be written", fix)
    return Finding("xdg", "ok", f"XDG_RUNTIME_DIR={place}")


def visible_devices() -> Finding:
    """Compare CUDA's numbering with the renderer's, which counts all GPUs of the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    renderer = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    text = f"CUDA_VISIBLE_DEVICES={'(not set)' if visible is None else visible}"
    if renderer is not None:
        text += f", MUJOCO_EGL_DEVICE_ID={renderer}"
    if not has_nvidia():
        return Finding("visible gpus", "ok", f"{text}; no NVIDIA GPU here")
    first = (visible or "0").split(",")[0]
    if visible in ("", "-1"):
        return Finding("visible gpus", "warn", text, "unset it; CUDA sees no GPU")
    if renderer is not None and renderer != first:
        fix = (
            f"export MUJOCO_EGL_DEVICE_ID={first}, or images come from another GPU than the physics"
        )
        return Finding("visible gpus", "warn", text, fix)
    if first != "0" and renderer is None:
        fix = (
            f"cuda:0 is GPU {first}, the renderer's GPU 0 is another: export "
            f"MUJOCO_EGL_DEVICE_ID={first}; Isaac Sim: --kit_args --/renderer/activeGpu={first}"
        )
        return Finding("visible gpus", "warn", text, fix)
    return Finding("visible gpus", "ok", text)


def _descriptions(directories: tuple[str, ...]) -> list[str]:
    """Return the names of the JSON files in these directories of the machine."""
    return sorted(f.name for d in directories for f in machine_file(d).glob("*.json"))


def _loads(library: str) -> bool:
    name = ctypes.util.find_library(library)
    if name is None:
        return False
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _absent(paths: str) -> str:
    """Return the first of these files that does not exist, or an empty string."""
    return next((p for p in paths.split(":") if p and not Path(p).exists()), "")


def _word(there: bool) -> str:
    return "found" if there else "not found"


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"
