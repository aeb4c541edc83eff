"""The tests that every source must pass, those of plug-ins and the built-in ones.

    from archisync.sources.conformance import SourceConformance

    class TestSftpSource(SourceConformance):
        def source(self): return SftpSource()
        def template(self): return "sftp://127.0.0.1/{agent}/{type}.csv"
        def place(self, agent_id, sync_type, content): ...   # make content the export of that pair
        def remove(self, agent_id, sync_type): ...           # take that export away

pytest finds the tests by the name of the class; nothing here imports pytest. An autouse fixture of the subclass provides what these
methods need (a server, a folder). Set `supports_unchanged = True` when the source returns validators. `variables()` are the settings that
it needs, and `secrets()` what no message may show.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from archisync.base.errors import ArchisyncError, ExportError, SourceError, SyncError, TransientSourceError, UsageError
from archisync.rules.config import Config
from archisync.sources.interface import MAX_VALIDATOR_CHARS, Export, Request, Source, Unchanged

CONTENT = b"order_id;created_at\n1;2026-01-02\n2;2026-01-03\n"
OTHER_CONTENT = b"order_id;created_at\n9;2026-02-02\n"
MAX_BYTES = 1_000_000

E = TypeVar("E", bound=BaseException)


class SourceConformance:
    """Subclass it in a test module, as the module's docstring shows."""

    supports_unchanged = False
    reads_files = True
    """False for a source that makes the file itself, of rows: `expected` says what is in it, and nothing of it is compressed."""

    # --- what an author fills in ----------------------------------------------------------------------------------

    def source(self) -> Source:
        """A new source, as the entry point's factory makes it."""
        raise NotImplementedError

    def template(self) -> str:
        """A template with `{agent}` and `{type}` that reads what `place` writes."""
        raise NotImplementedError

    def place(self, agent_id: str, sync_type: str, content: bytes) -> None:
        """Make `content` the export of that pair."""
        raise NotImplementedError

    def remove(self, agent_id: str, sync_type: str) -> None:
        """Take the pair's export away."""
        raise NotImplementedError

    def expected(self, content: bytes) -> bytes:
        """What the file has in it when `content` is the export of a pair."""
        return content

    def variables(self) -> Mapping[str, str]:
        """Environment variables that the source needs."""
        return {}

    def secrets(self) -> Iterable[str]:
        """Texts that neither an origin nor an error may show."""
        return ()

    # --- help -----------------------------------------------------------------------------------------------------

    def request(self, spool_dir: Path, **changes: Any) -> Request:
        """A request for the orders of agent-1; `changes` are its fields."""
        known: dict[str, Any] = {
            "template": self.template(),
            "agent_id": "agent-1",
            "sync_type": "orders",
            "spool_dir": spool_dir,
            "max_bytes": MAX_BYTES,
            "config": Config.from_environment(dict(self.variables())),
        }
        return Request(**(known | changes))

    def fetched(self, request: Request) -> Export:
        found = self.source().fetch(request)
        assert isinstance(found, Export), f"fetch() returned {found!r}"
        return found

    def raised(self, error_class: type[E] | tuple[type[E], ...], request: Request) -> E:
        """The error of a fetch that must fail and must leave nothing in the spool directory."""
        before = set(request.spool_dir.iterdir())
        try:
            found = self.source().fetch(request)
        except error_class as exc:
            assert set(request.spool_dir.iterdir()) == before, "a failed fetch left a file in the spool directory"
            return exc
        raise AssertionError(f"fetch() returned {found!r} where it should have failed")

    # --- tests ----------------------------------------------------------------------------------------------------

    def test_export_is_a_private_complete_copy(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        export = self.fetched(self.request(tmp_path))
        assert export.path.read_bytes() == self.expected(CONTENT)
        assert export.path.resolve().parent == tmp_path.resolve(), "the export is not in the spool directory"
        status = export.path.lstat()
        assert stat.S_ISREG(status.st_mode), "the export is no regular file"
        assert stat.S_IMODE(status.st_mode) & 0o077 == 0, "others may read the export"
        assert export.size_bytes == len(self.expected(CONTENT))
        assert export.sha256 == hashlib.sha256(self.expected(CONTENT)).hexdigest()
        assert export.suffix == "" or (export.suffix.startswith(".") and export.suffix == export.suffix.lower())
        assert export.origin

    def test_later_changes_of_the_original_do_not_change_the_copy(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        export = self.fetched(self.request(tmp_path))
        self.place("agent-1", "orders", OTHER_CONTENT)
        self.remove("agent-1", "orders")
        assert export.path.read_bytes() == self.expected(CONTENT)

    def test_two_fetches_make_two_files(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        first, second = self.fetched(self.request(tmp_path)), self.fetched(self.request(tmp_path))
        assert first.path != second.path
        assert first.sha256 == second.sha256

    def test_each_agent_and_type_has_its_own_export(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        self.place("agent-2", "orders", OTHER_CONTENT)
        self.place("agent-1", "ddt", OTHER_CONTENT + b"8;2026-02-03\n")
        assert self.fetched(self.request(tmp_path)).path.read_bytes() == self.expected(CONTENT)
        assert self.fetched(self.request(tmp_path, agent_id="agent-2")).path.read_bytes() == self.expected(
            OTHER_CONTENT
        )
        assert self.fetched(self.request(tmp_path, sync_type="ddt")).path.read_bytes() != self.expected(OTHER_CONTENT)

    def test_new_export_is_fetched_at_once(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        self.fetched(self.request(tmp_path))
        self.place("agent-1", "orders", OTHER_CONTENT)
        assert self.fetched(self.request(tmp_path)).path.read_bytes() == self.expected(OTHER_CONTENT)

    def test_gzipped_export_is_unpacked(self, tmp_path: Path) -> None:
        if not self.reads_files:
            return
        self.place("agent-1", "orders", gzip.compress(CONTENT))
        export = self.fetched(self.request(tmp_path))
        assert (export.path.read_bytes(), export.size_bytes) == (CONTENT, len(CONTENT))
        assert export.sha256 == hashlib.sha256(CONTENT).hexdigest(), "the hash is of the unpacked content"

    def test_truncated_gzip_is_refused(self, tmp_path: Path) -> None:
        if not self.reads_files:
            return
        packed = gzip.compress(CONTENT)
        for length in (len(packed) - 1, len(packed) // 2, 3):
            self.place("agent-1", "orders", packed[:length])
            self.raised(ExportError, self.request(tmp_path))

    def test_empty_export_is_fetched_for_the_reader_to_refuse(self, tmp_path: Path) -> None:
        if not self.reads_files:
            return
        self.place("agent-1", "orders", b"")
        assert self.fetched(self.request(tmp_path)).size_bytes == 0

    def test_export_of_the_largest_size_is_fetched_and_a_larger_one_is_refused(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        size_bytes = len(self.expected(CONTENT))
        assert self.fetched(self.request(tmp_path, max_bytes=size_bytes)).size_bytes == size_bytes
        self.raised(ExportError, self.request(tmp_path, max_bytes=size_bytes - 1))

    def test_limit_applies_to_the_unpacked_size(self, tmp_path: Path) -> None:
        if not self.reads_files:
            return
        self.place("agent-1", "orders", gzip.compress(bytes(20 * MAX_BYTES)))
        self.raised(ExportError, self.request(tmp_path))

    def test_missing_export_is_an_error_and_not_an_empty_export(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        self.remove("agent-1", "orders")
        error = self.raised((SourceError, TransientSourceError), self.request(tmp_path))
        assert error.message
        assert error.hint, "an error needs a hint"

    def test_agent_id_is_never_a_path(self, tmp_path: Path) -> None:
        for agent_id in ("../agent-1", "agent-1/..", "", "a b", "agent-1\n", "agent-1;id", "%2e%2e"):
            self.raised(UsageError, self.request(tmp_path, agent_id=agent_id))

    def test_error_can_be_pickled(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        self.remove("agent-1", "orders")
        error = self.raised(SyncError, self.request(tmp_path))
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(again), again.message, again.hint) == (type(error), error.message, error.hint)

    def test_no_secret_is_shown(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        shown = repr(self.fetched(self.request(tmp_path)))
        self.remove("agent-1", "orders")
        missing = self.raised(ArchisyncError, self.request(tmp_path))
        shown += f"{missing!r} {missing.hint} {self.request(tmp_path).config!r}"
        for secret in self.secrets():
            assert secret not in shown, "a secret is shown"

    def test_validators_are_short_texts(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        validators = self.fetched(self.request(tmp_path)).validators
        assert bool(validators) is self.supports_unchanged
        assert {type(part) for pair in validators.items() for part in pair} <= {str}
        assert sum(len(name) + len(value) for name, value in validators.items()) <= MAX_VALIDATOR_CHARS

    def test_unchanged_export_is_not_fetched_and_a_changed_one_is(self, tmp_path: Path) -> None:
        if not self.supports_unchanged:
            return
        self.place("agent-1", "orders", CONTENT)
        validators = dict(self.fetched(self.request(tmp_path)).validators)
        assert isinstance(self.source().fetch(self.request(tmp_path, validators=validators)), Unchanged)
        self.place("agent-1", "orders", OTHER_CONTENT)
        assert self.fetched(self.request(tmp_path, validators=validators)).path.read_bytes() == self.expected(
            OTHER_CONTENT
        )

    def test_validators_of_another_export_never_hide_an_export(self, tmp_path: Path) -> None:
        self.place("agent-1", "orders", CONTENT)
        assert self.fetched(self.request(tmp_path, validators={"foreign": "x"})).path.read_bytes() == self.expected(
            CONTENT
        )
        other = dict(self.fetched(self.request(tmp_path)).validators)
        self.place("agent-2", "orders", CONTENT)
        found = self.fetched(self.request(tmp_path, agent_id="agent-2", validators=other))
        assert found.path.read_bytes() == self.expected(CONTENT)
