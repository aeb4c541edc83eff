"""Places where exports are, each filled by the test: a folder, one on an SFTP server, a bucket (`tests.support.s3`)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Place(Protocol):
    """Where the exports of the test are, and their settings. `names`: all of them, by path."""

    root: str
    variables: Mapping[str, str]

    def put(self, name: str, content: bytes) -> None: ...
    def names(self) -> dict[str, bytes]: ...


class Folder:
    """Files get older times in the order in which they are written, all of them long ago."""

    def __init__(self, root: str, folder: Path, variables: Mapping[str, str]) -> None:
        self.root, self._folder, self.variables = root + str(folder), folder, variables
        self._moment = 1_000_000_000

    def put(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._moment += 1
        os.utime(path, (self._moment, self._moment))

    def names(self) -> dict[str, bytes]:
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self._folder)): path.read_bytes() for path in files}
