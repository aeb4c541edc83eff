"""--folder and ARCHISYNC_FOLDER: settings from a file, as if a shell had read it before.

What --folder names wins over the environment, since somebody typed it; the environment wins over the file in ARCHISYNC_FOLDER. Processes
that a command starts find both in their environment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from archisync.base.envfile import FOLDER_VARIABLE, settings_of
from archisync.base.errors import UsageError

_STARTS_SERVERS = ("up", "demo")
"""They bring PostgreSQL and Redis; `up` reads the file itself."""


def use_folder(arguments: Sequence[str]) -> list[str]:
    """Read the folder's settings into the environment. Returns the arguments without --folder, which may stand anywhere before `--`.

    Raises UsageError, and ConfigurationError for a file that is missing in the folder that --folder names, or can't be read.
    """
    others, typed = _without_folder(arguments)
    if typed is not None:
        os.environ[FOLDER_VARIABLE] = str(Path(typed).expanduser().absolute())
    folder = os.environ.get(FOLDER_VARIABLE, "").strip()
    if folder and not set(_STARTS_SERVERS).intersection(others[:1]):
        _read(Path(folder), wins=typed is not None)
    return others


def _without_folder(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    others: list[str] = []
    typed: str | None = None
    words = iter(arguments[:end])
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--folder":
            others.append(word)
            continue
        typed = value if equals else next(words, "")
        if not typed:
            raise UsageError("--folder needs a folder", hint="archisync --folder ~/archisync status")
    return others + list(arguments[end:]), typed


def _read(folder: Path, *, wins: bool) -> None:
    for name, value in settings_of(folder, os.environ, required=wins).items():
        if wins or not os.environ.get(name, "").strip():
            os.environ[name] = value
