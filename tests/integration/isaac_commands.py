"""Commands that a user types, on a stage of one generation of Isaac Lab."""

import contextlib
import subprocess
from pathlib import Path

import psutil
from isaac_stage import physics, run_python, stage

APPO = "isaac_hydra_ext.scripts.reinforcement_learning.appo"
SMALL = ["--num_envs", "8", "--num_workers", "2", "--max_iterations", "2"]
Done = subprocess.CompletedProcess[str]


class Stage:
    """One generation, and commands that run in it."""

    def __init__(self, generation: str, where: Path) -> None:
        self.where, self.env = where, stage(generation, where)
        self.timeout_s = 600.0 if generation == "real" else 400.0
        self.env["STAGE"] = str(where)
        self.selectors = [f"physics={p}"] if (p := physics(generation)) else []

    def train(self, *arguments: str, task: str = "Isaac-Cartpole-Direct-v0") -> Done:
        line = ["-m", f"{APPO}.train", "--task", task, *self.selectors, "--headless"]
        if "--device" not in arguments:
            line += ["--device", "cpu"]
        return run_python([*line, *arguments], self.env, self.where, self.timeout_s)

    def run(self, *overrides: str) -> Done:
        line = ["-m", "isaac_hydra_ext.appo_runner", *overrides]
        return run_python(line, self.env, self.where, self.timeout_s)

    def module(self, name: str, *arguments: str) -> Done:
        line = ["-m", f"{APPO}.{name}", *arguments]
        return run_python(line, self.env, self.where, self.timeout_s)

    def left_running(self) -> list[str]:
        """Processes of this stage's commands, which are all over."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("STAGE") == str(self.where):
                    found.append(" ".join(process.cmdline()))
        return found

    def newest_run(self) -> Path:
        runs = (p for p in self.where.glob("logs/appo/[!.]*/*") if not p.is_symlink())
        return max(runs, key=lambda p: p.stat().st_mtime_ns)
