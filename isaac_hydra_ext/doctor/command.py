"""Makes every check, each for itself, and prints what was found.

    appo doctor [--json]
    python -m isaac_hydra_ext.doctor        # where appo itself does not start

Exits with 1 if a check fails. Runs in one process, with short-lived ones beside it.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.doctor import graphics, machine, software
from isaac_hydra_ext.terminal.findings import Finding, as_text, verdict

CHECKS: Mapping[str, Callable[[], Finding]] = {
    "python": software.python,
    "packages": software.packages,
    "extras": software.extras,
    "torch": software.torch,
    "driver": software.driver,
    "visible gpus": graphics.visible_devices,
    "gymnasium": software.gymnasium,
    "hydra": software.hydra,
    "mjlab": software.mjlab,
    "isaac lab": software.isaac_lab,
    "eula": software.eula,
    "assets": software.asset_root,
    "mujoco gl": graphics.mujoco_gl,
    "egl": graphics.egl,
    "vulkan": graphics.vulkan,
    "library paths": graphics.library_paths,
    "xdg": graphics.runtime_dir,
    "cores": machine.cores,
    "memory": machine.memory,
    "shared memory": machine.shared_memory,
    "ulimits": machine.ulimits,
    "write access": machine.write_access,
}


def examine(checks: Mapping[str, Callable[[], Finding]] = CHECKS) -> list[Finding]:
    """Make all checks beside each other; returns their findings in order.

    A check that raises says nothing of the others: it becomes a warning of its own.
    """

    def one(name: str) -> Finding:
        try:
            return checks[name]()
        except Exception as e:  # of a broken machine, anything
            text = f"cannot be checked: {type(e).__name__}: {e}"
            return Finding(name, "warn", " ".join(text.split()), "look at it by hand")

    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, checks))


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo doctor",
        description="Check what this machine can run; each line that is not ok says what to do.",
        epilog="warn: something will not work or be slow. fail: runs cannot work; the exit code "
        "is 1 then. Where appo itself does not start: python -m isaac_hydra_ext.doctor",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    arguments = parser.parse_args()
    findings = examine()
    status = verdict(findings)
    if arguments.json:
        print(json.dumps({"status": status, "checks": [asdict(f) for f in findings]}, indent=2))
    else:
        print(as_text(findings, shutil.get_terminal_size((1000, 24)).columns))
    sys.exit(1 if status == "fail" else 0)


if __name__ == "__main__":
    main()
