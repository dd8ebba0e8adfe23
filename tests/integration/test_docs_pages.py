"""What the docs say is what the code has: messages, knobs, metrics, links, and the built site."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docs_blocks import PAGES, ROOT
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from isaac_hydra_ext import errors
from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.config.reference import as_help, as_markdown
from isaac_hydra_ext.config.schema import RunConfig, all_knobs

PACKAGE = ROOT / "isaac_hydra_ext"
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
GROUPS = "|".join(vars(RunConfig()))
NOT_KNOBS = re.compile(
    r"policy\.(flat|actor_hidden_dims)|env\.(step|yaml|decimat\w+)|\w+\.(py|pt|onnx|json)"
)


def texts() -> Iterator[str]:
    """Yield every string of the package's code, `...` where an f-string has a value."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [n.value if isinstance(n, ast.Constant) else "..." for n in node.values]
                yield "".join(str(part) for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_of_troubleshooting_is_one_that_the_code_says() -> None:
    said = list(texts())
    messages = re.findall(r"^\| `(.+?)` \|", TROUBLE, re.M)
    assert len(messages) > 5
    missing = []
    for message in messages:
        parts = [re.escape(part.strip()) for part in message.split("...") if part.strip(" :;,")]
        assert parts, message
        pattern = re.compile(".*".join(parts), re.S)
        if not any(map(pattern.search, said)):
            missing.append(message)
    assert missing == []


def test_every_test_that_reliability_names_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ")]
    missing, path = [], ROOT
    for _, _, tests in rows:
        for file, name in re.findall(r"`(?:([\w/]+\.py)(?:::)?)?(\w*)`", tests):
            if file:
                path = ROOT / file if "/" in file else ROOT / "tests" / "faults" / file
            if not path.exists() or f"def {name}" not in path.read_text():
                missing.append(f"{file}::{name}")
    assert len(rows) > 40
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_knob_that_is_named_exists(page: Path) -> None:
    knobs = {key for key, _, _ in all_knobs()}
    free = tuple(f"{key}." for key, default, _ in all_knobs() if isinstance(default, dict))
    named = re.findall(rf"[`'+ ]((?:{GROUPS})\.[a-z_]+[a-z_.]*)(?=[`=' ,;)])", page.read_text())
    knobs |= {key.rpartition(".")[0] for key in knobs}  # logging.video has knobs of its own
    wrong = [key for key in named if key not in knobs and not key.startswith(free)]
    assert [key for key in wrong if not NOT_KNOBS.fullmatch(key)] == []


def test_the_reference_has_every_knob_in_the_help_and_on_the_page() -> None:
    page, text = as_markdown(), as_help()
    for key, _, metadata in all_knobs():
        assert page.count(f"| `{key}` |") == 1
        meaning = re.sub(r"^\[[^\]]+\] ", "", metadata["doc"])
        assert re.sub(r"([|*_])", r"\\\1", meaning) in page
        assert f"  {key}=" in text
    assert "| `ppo.gamma` | `0.99` | `float` | - | >= 0, <= 1 | discount per env step |" in page
    assert max(len(line) for line in text.splitlines()) <= 120


def test_every_metric_of_a_run_is_explained_and_no_other(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    typed = [
        f"experiment.output_dir={tmp_path}", "experiment.max_iterations=8",
        "rollout.num_workers=0", "rollout.envs_per_worker=2", "rollout.steps_per_env=32",
        "rollout.init_at_random_ep_len=false", "logging.console=quiet",
        "+ppo.terms.rnd.weight=0.1",
        "ppo.symmetry.mirrors={m:{obs:{policy:[1,-2,-3]},action:[-1]}}",
    ]  # fmt: skip
    tags, runs = set[str](), []
    for more in ([], ["algorithm.kind=distillation", "distillation.teacher=RUN"]):
        words = [*typed, *(word.replace("RUN", runs[-1]) for word in more)]
        with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
            runs.append(train(compose("train_appo", overrides=words), words)["run_dir"])
        events = EventAccumulator(runs[-1])
        events.Reload()
        tags |= set(events.Tags()["scalars"])
    rows = re.findall(r"^\| (`[^|]+) \|", METRICS, re.M)
    explained = {tag for row in rows for tag in re.findall(r"`(\w+/\w+)`", row)}
    assert tags - explained == set()
    assert {tag for tag in explained if not tag.startswith("Eval/")} - tags == set()
    for name in re.findall(r"`(Async|Loss|Perf|Policy|Train)/([a-z_]+)`", _all_text()):
        assert "/".join(name) in tags


def _all_text() -> str:
    return "\n".join(page.read_text() for page in PAGES)


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        place = page.parent / target if target else page
        assert place.exists(), target
        if anchor:
            assert anchor in _anchors(place), f"{target}#{anchor}"


def test_the_pictures_are_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 200_000, picture
        assert f"images/{picture.name})" in _all_text(), picture


def test_the_sites_menu_has_every_page_once() -> None:
    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for below in node.values() if isinstance(node, dict) else node:
            if not isinstance(node, str):
                yield from leaves(below)

    config = OmegaConf.to_container(OmegaConf.load(ROOT / "mkdocs.yml"))
    assert isinstance(config, dict)
    listed = list(leaves(config["nav"]))
    outside = {"index.md", "benchmarks.md", "benchmark_notes.md", "contributing.md"}
    outside |= {"changelog.md", "go1_example.md"}
    docs = ROOT / "docs"
    written = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert sorted(listed) == sorted(written | outside)


def test_the_api_pages_name_what_exists() -> None:
    named = re.findall(r"^::: (\S+)$", "\n".join(
        path.read_text() for path in (ROOT / "docs" / "api").glob("*.md")), re.M)  # fmt: skip
    assert len(named) > 20
    assert [name for name in named if not _exists(name)] == []


@pytest.mark.parametrize(
    "name",
    ["isaac_hydra_ext.no_room", "isaac_hydra_ext.no_room.ppo", "isaac_hydra_ext.errors.NoError"],
)
def test_a_misspelt_module_or_class_is_seen(name: str) -> None:
    assert not _exists(name)
    assert _exists("isaac_hydra_ext.errors.ConfigError") and _exists("isaac_hydra_ext.errors")


def _exists(name: str) -> bool:
    """Whether there is such a module, or such an attribute of one."""
    try:
        importlib.import_module(name)
        return True
    except ModuleNotFoundError as e:
        if not name.startswith(str(e.name)):
            raise  # one that it imports is missing
    parent, _, attribute = name.rpartition(".")
    return "." in name and _exists(parent) and hasattr(importlib.import_module(parent), attribute)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for package in ("material", "mkdocstrings", "mkdocstrings_handlers"):
        pytest.importorskip(package, reason="needs pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=250,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "configuration" / "index.html").read_text()
    for key, _, _ in all_knobs():
        assert f"<code>{key}</code>" in page
    first = (tmp_path / "site" / "index.html").read_text()
    assert "mean return" in first and "\\|" not in first
    page = (tmp_path / "site" / "api" / "errors" / "index.html").read_text()
    for name, value in inspect.getmembers(errors, inspect.isclass):
        if issubclass(value, errors.IsaacHydraExtError):
            assert f'id="isaac_hydra_ext.errors.{name}"' in page
