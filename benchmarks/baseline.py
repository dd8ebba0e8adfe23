"""An earlier build of this package beside this one, for `--baseline REV`.

A checkout of REV with this build's benchmarks in it: both builds are measured by the same lines. It
runs in this venv where both ask for the same packages, and in one of its own where they do not.
"""

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import REPOSITORY, module_environment, run_module

DEPENDENCIES = re.compile(r"^dependencies = \[.*?^\]", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Build:
    """One of the two.

    Attributes:
        name: `new`, or the baseline's commit.
        root: Of its repository.
        python: That runs it.
    """

    name: str
    root: Path = REPOSITORY
    python: str = sys.executable

    def run_module(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> str:
        """As `common.run_module`, with this build's code."""
        return run_module(module, arguments, environment, self.root, self.python)

    def start(self, module: str, arguments: Sequence[str]) -> "subprocess.Popen[str]":
        """Start `python -m module`, to talk to line by line."""
        return subprocess.Popen(
            [self.python, "-m", module, *arguments],
            cwd=self.root,
            env=module_environment(self.root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


@contextmanager
def builds(baseline: str | None) -> Iterator[list[Build]]:
    """Give this build, and the baseline's before it if there is one."""
    if baseline is None:
        yield [Build("new")]
        return
    git = ["git", "-C", str(REPOSITORY)]
    asked = [*git, "rev-parse", "--short", f"{baseline}^{{commit}}"]
    commit = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    with TemporaryDirectory() as directory:
        root = Path(directory, commit)
        add = [*git, "worktree", "add", "--detach", str(root), commit]
        subprocess.run(add, check=True, capture_output=True)
        try:
            shutil.rmtree(root / "benchmarks")
            ignored = shutil.ignore_patterns("results", "__pycache__")
            shutil.copytree(REPOSITORY / "benchmarks", root / "benchmarks", ignore=ignored)
            yield [Build(commit, root, _python(root, Path(directory, "venv"))), Build("new")]
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(root)], check=True)


def _python(root: Path, own: Path) -> str:
    """Return the interpreter for a checkout; make `own` where it asks for other packages."""
    here, there = ((r / "pyproject.toml").read_text() for r in (REPOSITORY, root))
    if DEPENDENCIES.findall(here) == DEPENDENCIES.findall(there):
        return sys.executable
    venv.create(own, with_pip=True)
    install = [str(own / "bin/pip"), "install", "--quiet", f"{root}[bench]"]
    subprocess.run(install, check=True)
    return str(own / "bin/python")
