"""Python, the packages, the simulators. Runs in the process of `appo doctor`."""

import importlib.metadata
import importlib.util
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from isaac_hydra_ext.system.limits import machine_file
from isaac_hydra_ext.system.probing import ProbeError, probe, run_bounded
from isaac_hydra_ext.terminal.findings import Finding

DISTRIBUTION = "isaac-hydra-ext"
# For a source tree on the path without an installation, which has no metadata.
REQUIRED = (
    "hydra-core<1.5,>=1.3.2", "omegaconf>=2.3", "torch>=2.5", "gymnasium>=0.29", "numpy>=1.23",
    "tensorboard>=2.10", "safetensors>=0.4", "rich>=12.0",
)  # fmt: skip
OPTIONAL = {
    "mjlab": "mjlab", "onnxruntime": "export", "matplotlib": "plot", "wandb": "wandb",
    "swanlab": "swanlab", "imageio_ffmpeg": "video",
}  # fmt: skip
ASSETS = "https://omniverse-content-production.s3-us-west-2.amazonaws.com"
ISAAC_MODULES = ("isaaclab", "isaaclab_tasks", "isaacsim", "newton")
EULA_VARIABLES = ("OMNI_KIT_ACCEPT_EULA", "ACCEPT_EULA")
ISAAC_LAB_PYTHON = "run with Isaac Lab's own Python: ./isaaclab.sh -p -m isaac_hydra_ext.doctor"

TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": [], "error": ""}
if torch.version.cuda:
    try:
        torch.cuda.init()
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except Exception as e:
        found["error"] = str(e).splitlines()[0]
print(json.dumps(found))
"""
HYDRA = """
import json, hydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
names = [p.__name__ for p in Plugins.instance().discover(SearchPathPlugin)]
print(json.dumps({"version": hydra.__version__, "plugins": names}))
"""
MJLAB = """
import json, mujoco, warp
from mjlab.tasks.registry import list_tasks
import mjlab.tasks
print(json.dumps({"tasks": len(list_tasks()), "mujoco": mujoco.__version__,
                  "warp": warp.config.version}))
"""
ISAAC_LAB = """
import json
from isaac_hydra_ext.envs.isaac.generation import detect_generation
print(json.dumps(detect_generation().value))
"""


def python() -> Finding:
    """Look at the interpreter."""
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.version_info >= (3, 14):
        return Finding("python", "warn", found, "not tested; use Python 3.10 to 3.13")
    if not sys.platform.startswith("linux"):
        return Finding("python", "warn", f"{found} on {sys.platform}", "Linux is what is tested")
    return Finding("python", "ok", found)


def packages() -> Finding:
    """Compare what is installed with this package's lower bounds."""
    wrong, found = [], []
    fix = f"{sys.executable} -m pip install {DISTRIBUTION}"
    try:
        from packaging.requirements import Requirement  # which hydra-core brings
    except ImportError as e:
        return Finding("packages", "fail", f"{e.name} is missing", fix)
    for wanted in map(Requirement, required()):
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        version = _version(wanted.name)
        if not version:
            wrong.append(f"{wanted.name} is missing")
            continue
        found.append(f"{wanted.name} {version}")
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} {version} is not {wanted.specifier}")
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), fix)
    return Finding("packages", "ok", ", ".join(found))


def required() -> list[str]:
    """Return the dependencies as they are declared: `torch>=2.5`, those of extras too."""
    try:
        return importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return list(REQUIRED)


def extras() -> Finding:
    """List the optional packages; none of them has to be there."""
    there = {name: _version(name) for name in OPTIONAL}
    found = [f"{name} {version}" for name, version in there.items() if version]
    missing = [f"{name} ([{extra}])" for name, extra in OPTIONAL.items() if not there[name]]
    text = ", ".join(found) or "none"
    return Finding(
        "extras", "ok", text + (f"; not installed: {', '.join(missing)}" if missing else "")
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def torch() -> Finding:
    """Import torch, and make a CUDA context where it is built for CUDA."""
    try:
        found = probe(TORCH)
    except ProbeError as e:
        return Finding("torch", "fail", f"cannot be imported: {e}", "reinstall torch")
    text = f"{found['version']}, CUDA {found['cuda'] or 'not built in'}"
    if found["gpus"]:
        return Finding("torch", "ok", f"{text}: {', '.join(found['gpus'])}")
    if not has_nvidia():
        return Finding("torch", "ok", f"{text}; no NVIDIA GPU here: learner and envs on the CPU")
    if found["cuda"] is None:
        fix = "install a CUDA build of torch: https://pytorch.org/get-started/locally"
        return Finding("torch", "warn", f"{text}, but there is an NVIDIA GPU", fix)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("torch", "warn", f"{text}; no GPU is visible", "unset CUDA_VISIBLE_DEVICES")
    fix = f"update the driver to one for CUDA {found['cuda']}, or install a torch for the driver"
    return Finding("torch", "warn", f"{text}; the GPU cannot be used: {found['error']}", fix)


def has_nvidia() -> bool:
    """Return whether an NVIDIA driver is loaded or its devices are in this container."""
    driver = machine_file("/proc/driver/nvidia/version")
    return driver.exists() or any(machine_file("/dev").glob("nvidia[0-9]*"))


def driver() -> Finding:
    """Ask nvidia-smi for driver and GPUs."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        status, out, err = run_bounded(query, 15.0)
    except FileNotFoundError:
        if not has_nvidia():
            return Finding("driver", "ok", "no NVIDIA GPU here")
        fix = "start the container with --gpus all and NVIDIA_DRIVER_CAPABILITIES=all"
        return Finding("driver", "warn", "a GPU, but no nvidia-smi", fix)
    if status is None:
        return Finding("driver", "fail", "nvidia-smi does not answer", "reboot; the driver hangs")
    if status:
        text = (out + err).strip().splitlines() or ["nvidia-smi fails"]
        return Finding("driver", "warn", text[0], "reinstall the NVIDIA driver")
    return Finding("driver", "ok", "; ".join(out.strip().splitlines()))


def gymnasium() -> Finding:
    """Import Gymnasium; 1.0 cannot do what the adapter needs."""
    from packaging.specifiers import SpecifierSet

    try:
        version = probe("import json, gymnasium; print(json.dumps(gymnasium.__version__))")
    except ProbeError as e:
        fix = f"{sys.executable} -m pip install gymnasium"
        return Finding("gymnasium", "fail", f"cannot be imported: {e}", fix)
    if SpecifierSet("==1.0.*").contains(version, prereleases=True):
        text = f"{version} has no same-step autoreset"
        return Finding("gymnasium", "fail", text, "pip install 'gymnasium>=1.1' (or 0.29)")
    return Finding("gymnasium", "ok", version)


def hydra() -> Finding:
    """Ask Hydra for its plugins: ours must be among them, once."""
    try:
        found = probe(HYDRA)
    except ProbeError as e:
        fix = "reinstall hydra-core, or the plugin that the message names"
        return Finding("hydra", "fail", f"its plugins cannot be loaded: {e}", fix)
    count = found["plugins"].count("IsaacHydraSearchPathPlugin")
    if count == 1:
        return Finding("hydra", "ok", f"{found['version']}, finds this package's configs")
    fix = f"{sys.executable} -m pip install -e . (or the wheel); hydra_plugins/ must be importable"
    return Finding("hydra", "fail", f"{found['version']} finds the plugin {count} times", fix)


def mjlab() -> Finding:
    """Import mjlab and count its tasks, where it is installed."""
    version = _version("mjlab")
    if not version:
        return Finding("mjlab", "ok", "not installed; only env=mjlab_* needs it")
    try:
        found = probe(MJLAB)
    except ProbeError as e:
        fix = f"{sys.executable} -m pip install 'isaac-hydra-ext[mjlab]'"
        return Finding("mjlab", "fail", f"{version} cannot be imported: {e}", fix)
    text = f"{version}, {found['tasks']} tasks, MuJoCo {found['mujoco']}, Warp {found['warp']}"
    return Finding("mjlab", "ok", text)


def isaac_lab() -> Finding:
    """Find Isaac Lab by its files, and say of which generation it is, without starting Kit."""
    places = {name: _place(name) for name in ISAAC_MODULES}
    if not places["isaaclab"]:
        return Finding("isaac lab", "ok", "not installed; only env=isaac_* needs it")
    try:
        generation = probe(ISAAC_LAB)
    except ProbeError as e:
        return Finding("isaac lab", "fail", f"{places['isaaclab']}: {e}", ISAAC_LAB_PYTHON)
    kit = "with Kit" if has_kit() else "kit-less"
    text = f"{generation} ({kit}) at {places['isaaclab']}"
    if has_kit():
        return Finding("isaac lab", "ok", text)
    if generation.startswith("2"):
        return Finding("isaac lab", "fail", f"{text}: 2.x needs Isaac Sim", ISAAC_LAB_PYTHON)
    if not places["newton"]:
        fix = "install newton, or use an Isaac Sim container"
        return Finding("isaac lab", "fail", f"{text}: neither Isaac Sim nor Newton", fix)
    return Finding("isaac lab", "ok", f"{text}; choose physics with env.physics=newton_mjwarp")


def has_kit() -> bool:
    """Return whether Isaac Sim can be found from this Python."""
    return bool(_place("isaacsim")) or bool(os.environ.get("ISAAC_PATH"))


def _place(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    return str(spec.origin or next(iter(spec.submodule_search_locations or []), ""))


def eula() -> Finding:
    """Look for the variable without which Kit asks a question that no worker can answer."""
    if not has_kit():
        return Finding("eula", "ok", "no Isaac Sim here; nothing to accept")
    accepted = {name: os.environ[name] for name in EULA_VARIABLES if name in os.environ}
    if any(value.lower() in ("y", "yes", "1", "true") for value in accepted.values()):
        return Finding("eula", "ok", " ".join(f"{k}={v}" for k, v in accepted.items()))
    fix = "read NVIDIA's licence, then: export OMNI_KIT_ACCEPT_EULA=YES ACCEPT_EULA=Y"
    return Finding("eula", "warn", "not accepted: Kit may wait for an answer", fix)


def asset_root() -> Finding:
    """Reach for the place that Isaac Lab loads its robots from."""
    if not _place("isaaclab"):
        return Finding("assets", "ok", "no Isaac Lab here; none needed")
    root = os.environ.get("ISAACSIM_ASSET_ROOT", ASSETS)
    fix = "open the network (or a proxy), or set ISAACSIM_ASSET_ROOT to a local copy (3.0)"
    if "://" not in root:
        if Path(root).is_dir():
            return Finding("assets", "ok", root)
        return Finding("assets", "warn", f"{root}: no such directory", fix)
    try:
        request = urllib.request.Request(root, method="HEAD")
        urllib.request.urlopen(request, timeout=10.0).close()
    except urllib.error.HTTPError:
        pass  # it answers: a listing of the root may be forbidden
    except (OSError, ValueError) as e:
        return Finding("assets", "warn", f"{root} cannot be reached ({e})", fix)
    return Finding("assets", "ok", f"{root} answers")
