"""A file of settings, one `NAME=value` a line: what a shell reads with `.`, systemd with EnvironmentFile=, and archisync with --folder."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from archisync.base.errors import ConfigurationError
from archisync.base.otherusers import user_name, who_else_writes

FOLDER_VARIABLE = "ARCHISYNC_FOLDER"
"""Names the folder of FILE, as --folder does."""
FILE = "archisync.env"
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.ASCII)
_FOR_A_SHELL = re.compile(r"\$\(|`|\$\{[^}]*[^A-Za-z0-9_}]")
"""Commands, and expansions that only a shell knows."""


def read_env_file(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that the file sets, in its order. Outside of single quotes, `$HOME` is replaced by what `environment` or a line above
    says. Raises ConfigurationError, which shows no value, and OSError."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8", errors="surrogateescape").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, value = _variable(text, {**environment, **found}, f"line {number} of {path}")
            found[name] = value
    return found


def _variable(text: str, known: Mapping[str, str], where: str) -> tuple[str, str]:
    matched = _LINE.fullmatch(text)
    if matched is None:
        raise ConfigurationError(f"{where} sets no variable", hint="each line is NAME=value or export NAME=value")
    name, raw = matched[1], matched[2]
    try:
        words = shlex.split(raw, comments=True)
    except ValueError:
        raise ConfigurationError(f"{where}: a quote in {name} is not closed", hint=f"{name}='…'") from None
    value = words[0] if words else ""
    literal = "'" in raw
    if len(words) > 1 or (not literal and _FOR_A_SHELL.search(raw)):
        raise ConfigurationError(
            f"{where}: only a shell can read {name}", hint=f"{name}='…', with the value written out"
        )
    return name, value if literal else _expanded(value, known)


def _expanded(value: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: known.get(found[1] or found[2], ""), value, flags=re.ASCII)


def write_env_file(path: Path, variables: Mapping[str, str], *, remark: str) -> None:
    """Write the variables for `.` in a shell. Only this user may read the file. An old one is replaced."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(new, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(f"# {remark}\n")
        file.write("".join(f"export {name}={shlex.quote(variables[name])}\n" for name in sorted(variables)))
    new.rename(path)


def _refuse_what_others_wrote(path: Path) -> None:
    """A source or a hook in the file is a program that this user would start. Raises ConfigurationError, and OSError."""
    if others := who_else_writes(path.stat()):
        me = user_name(os.geteuid())
        raise ConfigurationError(
            f"{path} is not read: it {others}, and it names programs that {me} would start",
            hint=f"look at what it says; then, as root: chown {me} {path} && chmod go-w {path} (or become its owner)",
        )


def settings_of(folder: Path, environment: Mapping[str, str], *, required: bool = False) -> dict[str, str]:
    """What archisync.env in the folder says about archisync; empty without one. Raises ConfigurationError."""
    path = folder / FILE
    try:
        _refuse_what_others_wrote(path)
        found = read_env_file(path, environment)
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"there is no {path}", hint=f"archisync up --folder {folder} makes it") from None
        return {}
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be read: {exc.strerror}", hint=f"ls -l {path}") from None
    return {name: value for name, value in found.items() if name.startswith("ARCHISYNC_") and name != FOLDER_VARIABLE}
