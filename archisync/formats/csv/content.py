"""The bytes of a file that is looked at several times: its end, its encoding, its header, its first rows, all of it."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 256 * 1024


class Content:
    """A file of one block is read once; a larger one is opened each time. `head`: its first block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self.head = file.read(_BLOCK_BYTES)
            self._is_small = not file.read(1)
        self.size_bytes = len(self.head) if self._is_small else path.stat().st_size

    def open(self) -> BinaryIO:
        return BytesIO(self.head) if self._is_small else self._path.open("rb")

    def blocks(self) -> Iterator[bytes]:
        with self.open() as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
