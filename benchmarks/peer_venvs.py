"""Make the virtual environments of `benchmarks.peers`: one a peer, from published packages.

python -m benchmarks.peer_venvs DIRECTORY

Their pins clash with each other and with ours (Sample Factory wants numpy < 2 and gymnasium < 1).
All have the torch that this project runs with, so that the difference is not torch's. What cannot
be installed is said, and is a named gap in the tables. CleanRL's current files are in no package:
their requirements are installed, and `benchmarks.peers --cleanrl` names a checkout.
"""

import argparse
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

REQUIREMENTS = {
    "stable_baselines3": ["stable-baselines3==2.9.2"],
    "cleanrl": ["gymnasium==0.29.1", "numpy<2", "tyro", "tensorboard"],
    "sample_factory": ["sample-factory==2.1.1", "numpy<2", "gymnasium<1", "setuptools<80"],
    "torchrl": ["torchrl==0.14.1", "gymnasium>=1.1"],
    "sb3_contrib": ["sb3-contrib==2.9.2"],
    "rsl_rl": ["rsl-rl-lib==5.5.1", "gymnasium>=1.1"],
}
TIMEOUT_S = 1800.0


def make(directory: Path) -> list[str]:
    """Make all of them that are missing; returns the names of those that failed."""
    failed = []
    for name, requirements in REQUIREMENTS.items():
        venv = directory / name
        if (venv / "bin" / "python").exists():
            continue
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=TIMEOUT_S)
        torch = f"torch=={metadata.version('torch')}"
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", torch]
        print(name, *requirements, flush=True)
        if subprocess.run([*pip, *requirements], timeout=TIMEOUT_S).returncode:
            shutil.rmtree(venv)  # half of one would count as installed
            failed.append(name)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    if names := make(parser.parse_args().directory):
        sys.exit(f"could not be installed: {', '.join(names)}")
