"""Takes the pictures of docs/images: the live table in a real terminal, TensorBoard in a browser.

    python scripts/docs_pictures.py table
    python scripts/docs_pictures.py tensorboard logs/appo/pendulum-v1

Needs tmux, chromium, and the packages pillow and websockets (mjlab brings both). By hand, when what
they show has changed.
"""

import argparse
import asyncio
import base64
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import websockets
from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

IMAGES = Path(__file__).parents[1] / "docs" / "images"
THEME = TerminalTheme(
    (24, 24, 32), (220, 220, 225),
    [(24, 24, 32), (220, 90, 90), (130, 200, 120), (220, 190, 100), (100, 150, 230),
     (190, 130, 220), (90, 200, 210), (220, 220, 225)],
)  # fmt: skip
COLUMNS, ROWS = 80, 20  # of the terminal: the command, eight lines, the table
SHOWN_AT = 50  # percent of the training
PORTS = 9333, 6123  # chromium's, TensorBoard's
TAGS = "mean_reward|mean_std|Policy/kl|explained"
PAGE = """<!doctype html><meta charset=utf-8><style>{stylesheet}
body {{ margin: 0; background: {background}; color: {foreground} }}
pre {{ font: 15px/19px 'DejaVu Sans Mono'; margin: 14px 16px }}
code {{ font-family: inherit }}</style><pre><code>{code}</code></pre>"""


def table() -> None:
    """Train Pendulum in tmux, and take its screen when the curve has risen."""
    tmux = ["tmux", "-L", "docs-pictures"]
    with tempfile.TemporaryDirectory() as home:
        train = f"{shlex.quote(str(Path(sys.executable).with_name('appo')))} train env=gym_pendulum"
        shell = f"cd {home} && echo '$ appo train env=gym_pendulum' && {train}; sleep 99"
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        subprocess.run([*tmux, "new-session", "-d", *size, "-s", "a", shell], check=True)
        try:
            screen, deadline = "", time.monotonic() + 900
            while not _is_at(screen):
                if time.monotonic() > deadline:
                    raise SystemExit(f"the training has not come to {SHOWN_AT}%:\n{screen}")
                time.sleep(0.5)
                capture = [*tmux, "capture-pane", "-e", "-p", "-t", "a"]
                screen = subprocess.run(capture, capture_output=True, text=True).stdout
        finally:
            subprocess.run([*tmux, "kill-server"])
        _picture_of(screen.replace(home, "/home/you"), IMAGES / "live_table.png")


def _picture_of(screen: str, to: Path) -> None:
    """Draw what tmux has captured, colours included."""
    lines = screen.rstrip("\n").split("\n")
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=StringIO())
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory, "page.html")
        page.write_text(console.export_html(theme=THEME, code_format=PAGE))
        asyncio.run(_photograph(page.as_uri(), to, (756, 28 + 19 * len(lines))))


def _is_at(screen: str) -> bool:
    found = re.search(r"\((\d+)%\)", screen)
    return found is not None and int(found[1]) >= SHOWN_AT


def tensorboard(logdir: str) -> None:
    """Show four curves of the runs below `logdir`."""
    flags = ["--logdir", logdir, "--port", str(PORTS[1]), "--host", "127.0.0.1"]
    tags = urllib.request.quote(TAGS, safe="")
    url = f"http://127.0.0.1:{PORTS[1]}/?darkMode=false&smoothing=0.5&tagFilter={tags}#timeseries"
    settings = json.dumps({"timeSeriesSettingsPaneOpened": False, "stepSelectorEnabled": False})
    script = f"localStorage.setItem('_tb_global_settings.timeseries', '{settings}')"
    with _running([str(Path(sys.executable).with_name("tensorboard")), *flags]):
        _wait_for(f"http://127.0.0.1:{PORTS[1]}")
        asyncio.run(_photograph(url, IMAGES / "tensorboard.png", (1200, 815), script))


@contextmanager
def _running(command: list[str]) -> Any:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(url: str) -> bytes:
    for _ in range(240):
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"{url}: no answer")


async def _photograph(url: str, to: Path, size: tuple[int, int], script: str = "") -> None:
    """Load a page in chromium, twice if a script is to be run in it, and save it as a PNG."""
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags += [f"--remote-debugging-port={PORTS[0]}", f"--user-data-dir={profile.name}"]
    with profile, _running(["chromium", *flags, "about:blank"]):
        tabs = json.loads(_wait_for(f"http://127.0.0.1:{PORTS[0]}/json"))
        (tab,) = (tab for tab in tabs if tab["type"] == "page")
        async with websockets.connect(tab["webSocketDebuggerUrl"], max_size=2**26) as socket:
            numbers = iter(range(1, 100))

            async def call(method: str, **parameters: Any) -> dict[str, Any]:
                number = next(numbers)
                message = {"id": number, "method": method, "params": parameters}
                await socket.send(json.dumps(message))
                while True:
                    answer = json.loads(await asyncio.wait_for(anext(aiter(socket)), 60))
                    if answer.get("id") == number:
                        return answer["result"]

            width, height = size
            shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            await call("Emulation.setDeviceMetricsOverride", **shape)
            await call("Page.navigate", url=url)
            if script:
                await asyncio.sleep(10)
                await call("Runtime.evaluate", expression=script)
                await call("Page.reload")
            await asyncio.sleep(10)  # until it has been drawn
            picture = await call("Page.captureScreenshot", format="png")
    to.write_bytes(base64.b64decode(picture["data"]))
    Image.open(to).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(to, optimize=True)
    print(f"wrote {to} ({to.stat().st_size / 1000:.0f} kB)")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("table", help="of a training in a terminal of 80 columns")
    kinds.add_parser("tensorboard", help="of runs that exist").add_argument("logdir")
    arguments = parser.parse_args()
    if arguments.kind == "table":
        table()
    else:
        tensorboard(arguments.logdir)


if __name__ == "__main__":
    main()
