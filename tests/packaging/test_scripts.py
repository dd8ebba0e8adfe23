"""The set-up scripts, with stand-ins for Python, pip and uv that write down their calls.

What they really install is seen by every CI run, which starts from them.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

TOOLS = ("bash", "cat", "cksum", "cut", "dirname", "env", "mkdir", "cp", "chmod", "sleep", "tail")
# `-c` code runs in the real Python, whose version may be another (MINOR); a virtual environment is
# a copy of this file and an `appo`.
PYTHON = f"""#!/usr/bin/env bash
case "$1 ${{2:-}}" in
  "-c "*)
    as="import sys; sys.version_info = (3, ${{MINOR:-11}}, 0)"
    exec {sys.executable} -c "$as"$'\\n'"$2" "${{@:3}}" ;;
  "--version "*) echo Python stand-in ;;
  "-m pip" | "-m ensurepip") echo "python $*" >>"$CALLS" ;;
  "-m venv")
    mkdir -p "${{@: -1}}/bin"
    cp "$0" "${{@: -1}}/bin/python"
    cp "$APPO" "${{@: -1}}/bin/appo"
    ;;
  *) exit 9 ;;
esac
"""
APPO = """#!/usr/bin/env bash
echo "appo $* pid $$"
exec sleep "${SLEEP:-0}"
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
[[ $1 != venv ]] || "$PYTHON" -m venv "${@: -1}"
"""


class Checkout:
    """A copy of the scripts, and the stand-ins."""

    def __init__(self, root: Path, source_tree: Path) -> None:
        self.root, self.bin, self.calls_file = root / "repo", root / "bin", root / "calls"
        self.bin.mkdir()
        shutil.copytree(source_tree / "scripts", self.root / "scripts")
        for name in ("pyproject.toml", "constraints.txt", "constraints-isaaclab.txt"):
            shutil.copy(source_tree / name, self.root)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        for name, text in (("python3", PYTHON), ("appo", APPO)):
            self.add_tool(name, text)
        self.env = {
            "PATH": str(self.bin),
            "PYTHON": str(self.bin / "python3"),
            "APPO": str(self.bin / "appo"),
            "CALLS": str(self.calls_file),
        }

    def add_tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(
        self, *arguments: str, script: str = "run_gym_local.sh", **variables: str
    ) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.root / "scripts" / script), *arguments],
            cwd=self.root.parent,
            env={**self.env, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background is deaf to it, and so would the script be.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def call(self, *arguments: str, code: int = 0, **variables: str) -> tuple[str, str]:
        """Run a script (`script=NAME`) to its end; returns what it printed."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
        return out, err

    def installs(self) -> list[str]:
        """Return the installing calls since the last time."""
        calls = self.calls_file.read_text() if self.calls_file.exists() else ""
        self.calls_file.write_text("")
        return [line for line in calls.splitlines() if " install " in line]


@pytest.fixture
def checkout(tmp_path: Path, source_tree: Path) -> Checkout:
    return Checkout(tmp_path, source_tree)


@pytest.mark.parametrize("script", ["run_gym_local.sh", "run_isaac_lab.sh", "test.sh"])
def test_help_says_how_and_makes_nothing(run: Any, checkout: Checkout, script: str) -> None:
    text = run(checkout.root / "scripts" / script, "--help", cwd=checkout.root.parent).stdout
    assert text.startswith(f"usage: scripts/{script} [")
    assert "PYTHON" in text
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize("uv", [False, True], ids=["pip", "uv"])
def test_it_installs_once_and_again_when_the_requirements_change(
    checkout: Checkout, uv: bool
) -> None:
    if uv:
        checkout.add_tool("uv", UV)
    checkout.call()
    (install,) = checkout.installs()
    assert install.startswith("uv pip install" if uv else "python -m pip install")
    assert install.endswith("-c constraints.txt -e .")
    checkout.call()
    assert checkout.installs() == []
    with (checkout.root / "constraints.txt").open("a") as f:
        f.write("nothing==1.0\n")
    checkout.call()
    assert len(checkout.installs()) == 1
    checkout.call(EXTRAS="mjlab")
    (install,) = checkout.installs()
    assert install.endswith("-c constraints.txt -e .[mjlab]")
    checkout.call()
    assert checkout.installs() == []


def test_an_interrupted_installation_is_done_again(checkout: Checkout) -> None:
    checkout.add_tool("python3", PYTHON.replace('"-m pip" |', '"-m pip") exit 1 ;; "-m x" |'))
    checkout.call(code=1)
    checkout.add_tool("python3", PYTHON)
    shutil.copy(checkout.bin / "python3", checkout.root / ".venv" / "bin" / "python")
    checkout.call()
    assert len(checkout.installs()) == 1


def test_overrides_come_last_so_that_they_win(checkout: Checkout) -> None:
    out, _ = checkout.call("env=gym_cartpole", "experiment.run_name=a b")
    assert "appo train env=gym_pendulum env=gym_cartpole experiment.run_name=a b pid" in out


def test_no_usable_python_is_one_line(checkout: Checkout) -> None:
    checkout.add_tool("old", '#!/usr/bin/env bash\n[[ $1 != -c ]]  # "too old"\n')
    _, err = checkout.call(PYTHON=str(checkout.bin / "old"), code=2)
    (line,) = err.splitlines()
    assert line.startswith("error: no Python 3.10 to 3.13 found at PYTHON=")
    assert not (checkout.root / ".venv").exists()


def test_isaac_lab_has_an_environment_of_its_own_and_says_which_python_it_needs(
    checkout: Checkout,
) -> None:
    script = {"script": "run_isaac_lab.sh"}
    _, err = checkout.call(**script, code=2)
    (line,) = err.splitlines()
    assert "no Python 3.12 found at PYTHON=" in line and "which Isaac Lab 3.0.0 needs" in line
    out, _ = checkout.call("ppo.lr=1", **script, MINOR="12", EXTRAS="video")
    (install,) = checkout.installs()
    assert install.endswith("-c constraints-isaaclab.txt -e .[isaaclab,video]")
    # This PATH has no nvidia-smi: the CPU it is.
    assert "appo train env=isaac_cartpole rollout.device=cpu rollout.num_workers=2" in out
    assert "ppo.lr=1 pid" in out and ".venv-isaaclab/bin/appo play RUN" in out
    checkout.add_tool("nvidia-smi", "#!/usr/bin/env bash\n")
    out, _ = checkout.call(**script, MINOR="12", EXTRAS="video")
    assert checkout.installs() == [] and "isaac_cartpole rollout.device=auto pid" in out
    assert not (checkout.root / ".venv").exists()


def test_a_failed_installation_says_what_pip_said(checkout: Checkout) -> None:
    checkout.add_tool(
        "python3", PYTHON.replace('"-m pip" |', '"-m pip") echo no such wheel; exit 7 ;; "-m x" |')
    )
    _, err = checkout.call(code=7)
    assert "no such wheel" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_script_reach_the_training(checkout: Checkout, number: int) -> None:
    process = checkout.start(SLEEP="60")
    try:
        assert process.stdout is not None
        line = ""
        while not line.startswith("appo train"):
            line = process.stdout.readline()
            assert line, "the training did not start"
        assert int(line.split()[-1]) == process.pid  # no shell is left in between
        time.sleep(0.2)  # the stand-in becomes `sleep`
        os.kill(process.pid, number)
        assert process.wait(timeout=10) == -number
    finally:
        process.kill()
        process.communicate()
