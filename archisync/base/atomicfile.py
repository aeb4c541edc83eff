"""Files that other processes read while we write them."""

import os
import tempfile
from pathlib import Path

from archisync.base.errors import UsageError


def replace(path: Path, content: str, *, mode: int) -> None:
    """Replace the file in one step: a reader sees the old or the new content. Raises UsageError."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise UsageError(f"{path} can't be written: {exc.strerror}", hint=f"ls -ld {path.parent}") from None
