"""What a source is asked for and what it hands back: a private copy of one export, on this machine's disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One export wanted. `spool_dir` is made, and removed, by the caller; `max_bytes` bounds the decompressed size."""

    template: str
    agent_id: str
    sync_type: str
    spool_dir: Path
    max_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """One export, fetched completely: a private regular file in the spool directory, already decompressed.

    `origin` is a name to show, without secrets. `suffix` is lower-case and without `.gz`: `.csv`, `.jsonl`, `""`.
    `sha256` is the hex digest of the decompressed content.
    """

    path: Path
    origin: str
    suffix: str
    size_bytes: int
    sha256: str


class Source(Protocol):
    """Where exports come from."""

    def fetch(self, request: Request) -> Export:
        """Fetch the whole export before anything of it is read.

        Raises UsageError (agent id), ConfigurationError (template), SourceError (no such export, no permission),
        TransientSourceError (may work in a moment) and ExportError (too large, damaged gzip).
        """
        ...
