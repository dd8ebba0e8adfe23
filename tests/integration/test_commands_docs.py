"""`appo` and its commands: each has help that is quick to come by, and a line in the docs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from isaac_hydra_ext import __version__
from isaac_hydra_ext.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEED_TORCH = {"train", "eval", "play", "export"}
PROGRAM = """
import sys
HEAVY = {"torch", "onnxruntime", "matplotlib", "tensorboard"}
from isaac_hydra_ext.cli.main import main
try:
    main()
finally:
    print("imported:", *sorted(HEAVY & set(sys.modules)))
"""


def ask(*words: str) -> tuple[str, set[str]]:
    """Run `appo ...`; returns what it says, and which heavy packages that took."""
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "80"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text, _, imported = done.stdout.rpartition("imported:")
    return text, set(imported.split())


def test_appo_help_names_every_command_and_imports_nothing_heavy() -> None:
    text, imported = ask("--help")
    assert re.findall(r"^  (\S+) ", text, re.M) == list(COMMANDS)
    assert max(map(len, text.splitlines())) <= 80
    assert not imported


def test_the_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["appo", "--version"])
    main()
    assert capsys.readouterr().out == f"isaac_hydra_ext {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    text, imported = ask(command, "--help")
    assert f"appo {command}" in text
    if command not in NEED_TORCH:
        assert max(map(len, text.splitlines())) <= 80
        assert not imported


def test_the_readme_has_a_row_for_every_command() -> None:
    cells = re.findall(r"^\| (`appo .*?) \|", PAGES[0].read_text(), re.M)
    rows = [name for cell in cells for name in re.findall(r"`appo (\S+?)[ `]", cell)]
    assert sorted(rows) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_docs_name_commands_and_pages_that_exist(page: Path) -> None:
    text = page.read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    for line in "\n".join(blocks).splitlines():
        if found := re.match(r"(?:\S*/)?appo (\S+)", line):
            assert found[1] in COMMANDS, line
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
