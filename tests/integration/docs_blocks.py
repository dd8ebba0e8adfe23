"""What the README and the docs tell a reader to type or to write: the text of their code blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "benchmarks" / "NOTES.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
VARIABLE = re.compile(r"^[A-Z_]+=(?!\$\()\S* ")


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, language and text."""

    page: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """The file that its first line names as `# path/to/file`, if it does."""
        found = re.match(r"# ([\w/.-]+\.\w+)", self.text)
        return found[1] if found else ""


@dataclass(frozen=True)
class Command:
    """One line of a shell block, continued lines joined, comments and variables gone."""

    page: str
    line: str

    def __str__(self) -> str:
        """Name a test."""
        return f"{self.page}: {self.line}"


def blocks(*languages: str) -> list[Block]:
    """Return the fenced blocks of these languages, of all pages."""
    found = []
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S):
            if language in languages:
                found.append(Block(name, language, text))
    return found


def commands() -> list[Command]:
    """Return every command of the shell blocks, in order, each line once."""
    found: dict[str, Command] = {}
    for block in blocks("bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            line = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
            for part in filter(None, line.split(" && ")):
                while VARIABLE.match(part):
                    part = VARIABLE.sub("", part)
                found.setdefault(part, Command(block.page, part))
    return list(found.values())
