"""Files that can't be read as an export.

Files that need a second process, one that writes to them or forbids reading them, have tests of their own (`test_unsteady_exports.py`).
"""

import gzip
import os
import socket
import stat
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

from tests.faults.badinput.cases import (
    MIB,
    BadExport,
    Outcome,
    Place,
    known_rows,
    written,
)


def _file(
    name: str,
    place: Place | bytes,
    words: str,
    *,
    outcome: Outcome = Outcome.FAILED,
    reason: str = "source-refused",
    heavy: bool = False,
) -> BadExport:
    return BadExport(id=name, form="file", given=place, outcome=outcome, words=words, reason=reason, heavy=heavy)


def _link(path: Path) -> None:
    target = path.with_name("elsewhere.csv")
    target.write_text(known_rows())
    path.symlink_to(target)


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _device(path: Path) -> None:
    """/dev/zero under another name, which only root can make."""
    os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 5))


def _file_as_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("x")


def _gzip_bomb() -> Iterator[bytes]:
    """4 GiB of zeros in 4 MiB: the members of a gzip file follow each other."""
    yield gzip.compress(known_rows().encode())
    yield from repeat(gzip.compress(bytes(64 * MIB)), 64)


_PACKED = gzip.compress(known_rows().encode(), mtime=0)
FILES = (
    _file("missing", lambda path: None, "no export at {path}, nor at customers.csv.gz beside it", reason="no-export"),
    _file("link", _link, "{path} is a symbolic link, which is not followed"),
    _file("dangling-link", lambda path: path.symlink_to("nowhere"), "{path} is a symbolic link, which is not followed"),
    _file("link-to-itself", lambda path: path.symlink_to(path), "{path} is a symbolic link, which is not followed"),
    _file("link-to-a-secret", lambda path: path.symlink_to("/etc/passwd"), "{path} is a symbolic link, which is not followed"),
    _file("fifo", os.mkfifo, "{path} is a FIFO, not a regular file"),
    _file("folder", Path.mkdir, "{path} is a directory, not a regular file"),
    _file("socket", _socket, "{path} is a socket or device, not a regular file"),
    _file("device", _device, "{path} is a device, not a regular file"),
    _file("file-in-place-of-the-folder", _file_as_folder, "a part of the path is not a directory", reason="no-export"),
    _file("packed-and-cut", _PACKED[:-9], "the gzip data is truncated or damaged", outcome=Outcome.HELD, reason="truncated"),
    _file(
        "packed-and-damaged", _PACKED[:-8] + b"\0" * 8, "the gzip data is truncated or damaged",
        outcome=Outcome.HELD, reason="truncated",
    ),
    _file(
        "packed-and-followed-by-rubbish", _PACKED + b"rubbish", "has other bytes after the end of its gzip data",
        outcome=Outcome.HELD, reason="unreadable",
    ),
    _file(
        "packed-and-followed-by-a-line-end", _PACKED + b"\n", "has other bytes after the end of its gzip data",
        outcome=Outcome.HELD, reason="unreadable",
    ),
    _file(
        "packed-twice", gzip.compress(_PACKED), "the export is compressed twice", outcome=Outcome.HELD,
        reason="unreadable",
    ),
    _file(
        "gzip-bomb", written(_gzip_bomb), "bytes, 200 times its size", outcome=Outcome.HELD, reason="unreadable", heavy=True,
    ),
)  # fmt: skip
