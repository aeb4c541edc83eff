"""Several files that are one export (`all=1`): each is fetched once, in order, and the list of them must stay as it was meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from archisync.base.errors import ExportError, TransientSourceError
from archisync.base.text import counted
from archisync.sources.interface import Export, Request

F = TypeVar("F")
MAX_PARTS = 1_000
_SHOWN = 20


def fetch_parts(
    find: Callable[[], Sequence[F]], fetch_one: Callable[[F, Request], Export], request: Request, *, shown: str
) -> Export:
    """Fetch what `find` finds as one export. `shown`: what they are, as the origin says it. Leaves no file when it raises.

    Raises what `fetch_one` raises, TransientSourceError when other files are there at the end than at the beginning, and ExportError for
    too many.
    """
    found = find()
    if len(found) > MAX_PARTS:
        raise ExportError(
            f"{shown}: {len(found)} files belong together", hint=f"at most {MAX_PARTS} are read as one export"
        )
    exports: list[Export] = []
    try:
        for one in found:
            left_bytes = request.max_bytes - sum(export.size_bytes for export in exports)
            exports.append(fetch_one(one, replace(request, max_bytes=left_bytes, validators={})))
        if list(find()) != list(found):
            raise TransientSourceError(
                f"{shown}: other files are there than when reading began",
                hint="they are read again; or add ?settle=30s",
            )
        return _joined(exports, shown)
    except BaseException:
        for export in exports:
            export.path.unlink(missing_ok=True)
        raise


def _joined(exports: Sequence[Export], shown: str) -> Export:
    if len({export.suffix for export in exports}) > 1:
        raise ExportError(
            f"{shown}: the files are of different formats", hint="let the pattern say which of them belong together"
        )
    digest = hashlib.sha256(json.dumps([export.sha256 for export in exports]).encode())
    return Export(
        path=exports[0].path,
        origin=f"{shown} ({counted(len(exports), 'file')})",
        suffix=exports[0].suffix,
        size_bytes=sum(export.size_bytes for export in exports),
        sha256=digest.hexdigest(),
        validators=validators_of([export.validators for export in exports]),
        details={"files": [export.origin.rpartition("/")[2] for export in exports[:_SHOWN]]},
        originals=tuple(original for export in exports for original in export.originals),
        parts=tuple(export.path for export in exports[1:]),
        written_at=max(export.written_at or 0 for export in exports) or None,
    )


def validators_of(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Validators for all of them; empty when one has none."""
    if not all(parts):
        return {}
    return {"files": hashlib.sha256(json.dumps([dict(part) for part in parts], sort_keys=True).encode()).hexdigest()}
