"""What a source gets and returns: a request for one export, and a private copy of it on this machine's disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from archisync.rules.config import Config


def _no_config() -> Config:
    return Config(environment={})


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request for one export. The caller makes and removes `spool_dir`; `max_bytes` limits the decompressed size.

    `config` holds the source's settings, credentials included, and never shows them. `validators` are those of the export that was
    applied last: the source may answer that it is unchanged. Without validators, the export itself is wanted.
    """

    template: str = field(repr=False)  # a command line or a query may hold a password
    agent_id: str
    sync_type: str
    spool_dir: Path
    max_bytes: int
    config: Config = field(default_factory=_no_config)
    validators: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """The file that an export was read from, and where `done=DIR` moves it once the export is applied.

    `stamp` says what the file was like when it was read: another one that has come in its place is left alone.
    """

    path: str
    target: str
    stamp: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """One export, fetched completely: a private regular file in the spool directory, already decompressed.

    `origin` is a name to show, without secrets. `suffix` is lower-case and without `.gz`: `.csv`, `.jsonl`, `""`. `sha256` is the hex
    digest of the decompressed content. `validators` are stored with a successful run and come back in the next request; they have at
    most `MAX_VALIDATOR_CHARS` in all. `details` go into the run's record, as JSON. `originals` are moved after the commit.
    `parts` are further files like the first, in order, where several are one export (`all=1`); sizes and digest are of all of them.
    `written_at`: when the ERP wrote the file, in seconds since 1970, where a file system, bucket or server says so: one that is older than
    the applied export of the same folder is held.
    """

    path: Path
    origin: str
    suffix: str
    size_bytes: int
    sha256: str
    validators: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    originals: tuple[Original, ...] = ()
    parts: tuple[Path, ...] = ()
    written_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Unchanged:
    """The export is still the one that the request's `validators` belong to. Nothing was fetched."""

    origin: str
    originals: tuple[Original, ...] = ()


Fetched: TypeAlias = Export | Unchanged

MAX_VALIDATOR_CHARS = 4096
"""An ETag has some dozens of characters; much more would only make the state table large."""


class Source(Protocol):
    """Where exports come from."""

    def fetch(self, request: Request) -> Fetched:
        """Fetch the whole export, before any of it is read.

        Raises UsageError (agent id), ConfigurationError (template, settings), SourceError (no such export, no permission),
        TransientSourceError (may work in a moment) and ExportError (too large, truncated, damaged gzip).
        """
        ...


class CheckedSource(Source, Protocol):
    """A built-in source: without fetching anything, it can check a template and its settings."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError unless the template and the settings make sense. Called when a worker starts."""
        ...


@runtime_checkable
class ProbedSource(Protocol):
    """A built-in source of another machine that can say whether it has an export, without reading it."""

    def probe(self, request: Request) -> None:
        """Raise what `Source.fetch` would raise for an export that is not there, or a server that does not let us in."""
        ...


@runtime_checkable
class MovingSource(Protocol):
    """A built-in source that can move files after the export in them is applied (`done=DIR`)."""

    def put_away(self, request: Request, originals: Sequence[Original]) -> None:
        """Move the files. Nothing happens to one that is gone, or in whose place another one has come.

        Raises SyncError when a file can't be moved.
        """
        ...
