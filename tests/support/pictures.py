"""The README's pictures, made from what the commands print.

What differs from run to run (times, hosts, durations) is replaced before, so that the same output gives the same picture.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.conftest import REPOSITORY, clean_environment

FOLDER = REPOSITORY / "examples" / "images"
DEMO = FOLDER / "demo.svg"
REPORT = FOLDER / "report.png"
DEMO_COLUMNS = 112
REPORT_WIDTH, REPORT_HEIGHT = 1000, 1250
"""The window's width, and how much of the page is shown."""
_TIMES = ("2026-11-24T02:12:03Z", "2026-11-24T02:22:03Z")
"""In place of the first and the second time of a line."""
_DIFFERS = (
    (r"\b\d+ ms\b", "40 ms"),
    (r"last tick: \d+ s ago on \S+", "last tick: 2 s ago on erp-1"),
    (r"Done in \d+ s", "Done in 9 s"),
)


def demo_lines() -> list[str]:
    """What `archisync demo` prints, without what differs from run to run."""
    command = [sys.executable, "-m", "archisync", "demo"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, check=True, timeout=240
    )
    return [settled(line) for line in done.stdout.splitlines()]


def settled(line: str) -> str:
    times = iter(_TIMES)
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lambda _: next(times), line)
    for pattern, text in _DIFFERS:
        line = re.sub(pattern, text, line)
    return line


def drawn(lines: Sequence[str], *, title: str, columns: int) -> str:
    """A terminal of so many columns that shows the lines, as SVG: commands bold, remarks in grey."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=columns, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        style = "bold" if line.startswith("$ ") else "bright_black" if line.startswith("# ") else ""
        console.print(Text(line, style=style), overflow="fold", highlight=False, markup=False)
    return console.export_svg(title=title, unique_id="archisync") + "\n"


def demo_svg() -> str:
    return drawn(demo_lines(), title="archisync demo", columns=DEMO_COLUMNS)


def report_picture(page: Path, profile: Path) -> Image.Image:
    """A screenshot of the report's upper part by chromium, whose profile is in the folder."""
    from tests.support.browser import browser, chromium

    program = chromium()
    assert program is not None
    with browser(program, profile) as shown:
        shown.open(page, width=REPORT_WIDTH, dark=False)
        whole = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
    return whole.crop((0, 0, whole.width, REPORT_HEIGHT))
