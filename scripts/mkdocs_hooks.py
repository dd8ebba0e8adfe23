"""What mkdocs does beyond its configuration; `mkdocs.yml` names this file.

Pages of the repository that lie outside docs/ become pages of the site, and docs/configuration.md
gets its tables from `isaac_hydra_ext/config/schema.py`. Runs in the process of mkdocs.
"""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from isaac_hydra_ext.config.reference import as_markdown  # noqa: E402

# Where a file of the repository is on the site.
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/NOTES.md": "benchmark_notes.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/go1_nav/README.md": "go1_example.md",
}
TABLES = "<!-- the tables of all knobs are put here when the site is built -->"
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to where their pages are on the site; put the knobs into their page."""
    sources = {site: source for source, site in PAGES.items()}
    place = page.file.src_uri
    text = relink(markdown, sources.get(place, f"docs/{place}"), place)
    return text.replace(TABLES, as_markdown())


def relink(markdown: str, source: str, place: str) -> str:
    """Turn a file's links, which are right in the repository, into those of its page.

    Args:
        markdown: The file's text.
        source: Its path in the repository.
        place: Its page's path on the site; no deeper than the links that it has.
    """

    def turn(found: re.Match[str]) -> str:
        before, target, anchor, after = found.groups()
        if ":" in target:
            return found[0]
        path = (ROOT / source).parent.joinpath(target).resolve().relative_to(ROOT).as_posix()
        page = PAGES.get(path, path.removeprefix("docs/"))
        up = "../" * place.count("/")
        return f"{before}{up}{page}{anchor or ''}{after}"

    return LINK.sub(turn, markdown)
