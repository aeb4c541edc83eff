"""The private folder in which a process keeps exports while it works on them: customers' data, removed even if the process is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from archisync.base import lockedfolders
from archisync.base.errors import TransientSourceError

PREFIX = "archisync-spool-"


class SpoolFolder:
    """A new folder of mode 0700 in Python's temporary directory (TMPDIR), until `remove`; a `with` gives its path.

    Raises TransientSourceError when it can't be made: the disk is full, or may not be written to.
    """

    def __init__(self) -> None:
        try:
            lockedfolders.remove_abandoned(PREFIX, Path(tempfile.gettempdir()))
            self.path, self._lock = lockedfolders.make(_made)
        except OSError as exc:
            where = tempfile.tempdir or ""
            raise no_room(
                f"make a folder for the export in the temporary directory {where}".rstrip(), where, exc
            ) from exc

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def no_room(what: str, where: Path | str, because: OSError | str) -> TransientSourceError:
    """The error of whoever can't do that in the temporary directory `where`: no fault of the export, so the run is tried again."""
    said = because if isinstance(because, str) else because.strerror or because
    hint = f"{f'df -h {where}'.rstrip()}; or set TMPDIR to a directory with room that the worker may write to"
    return TransientSourceError(f"cannot {what}: {said}", hint=hint)


def _made() -> Path:
    return Path(tempfile.mkdtemp(prefix=PREFIX))
