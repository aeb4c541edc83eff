"""The object-store source (extra `objects`): `s3://bucket/key`, `gs://bucket/key`, `az://container/key`, by obstore.

    s3://acme-exports/{agent}/{type}_{date:%Y%m%d}.csv
    s3://acme-exports/{agent}/all.zip#{type}_*.csv

Credentials, region and endpoint are those that the stores' own tools read from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` …), or of the machine's own account. They never stand in a template.
An object is one answer with one ETag, so it can't change while it is read; one with the ETag of the applied export is not read again.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import lru_cache, partial
from time import monotonic
from typing import Any, NamedTuple

import obstore
from obstore import store
from obstore.exceptions import (
    BaseError,
    NotFoundError,
    NotModifiedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)

from archisync.base.errors import (
    AuthenticationError,
    ConfigurationError,
    NoExportError,
    SyncError,
    TransientSourceError,
    TruncatedError,
)
from archisync.base.text import printable, redact
from archisync.rules.config import Config
from archisync.sources.archive import split_member
from archisync.sources.interface import Export, Fetched, Original, Request, Unchanged
from archisync.sources.names import Listed, Options, checked_pattern, require_settled, split_options
from archisync.sources.parts import fetch_parts, validators_of
from archisync.sources.spool import spool, suffix_of
from archisync.sources.template import fill, has_placeholder
from archisync.sources.unpack import too_large

SCHEMES = ("s3", "gs", "az")
_ADDRESS = re.compile(r"(?i)(s3|gs|az)://([^/]+)/(.+)", re.DOTALL)
_HINT = "for example s3://bucket/{agent}/{type}.csv, gs://bucket/{type}.csv or az://container/{type}.csv"


class _Store(NamedTuple):
    """What a store's variables begin with, which of them log in, and which say where it is."""

    prefix: str
    credentials: str
    place: str


_STORES = {
    "s3": _Store(
        "AWS_", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or their like", "AWS_ENDPOINT_URL and AWS_REGION"
    ),
    "gs": _Store("GOOGLE_", "GOOGLE_APPLICATION_CREDENTIALS, the path of a key", "GOOGLE_BASE_URL"),
    "az": _Store(
        "AZURE_",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or their like (but no connection string)",
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_ENDPOINT",
    ),
}
_CONNECT_TIMEOUT_S = 15
_STREAM_BYTES = 1024 * 1024
_LOGIN_REFUSED = re.compile(
    r"ExpiredToken|TokenRefreshRequired|InvalidAccessKeyId|InvalidToken|SignatureDoesNotMatch|RequestTimeTooSkewed"
    r"|AuthenticationFailed|invalid_grant"
)
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google|MissingCredential|No credential", re.IGNORECASE)
_THROTTLED = re.compile(r"SlowDown|ServerBusy|429|TooManyRequests|Please reduce your request rate")
_THROTTLED_S = 30.0
_SHORTEST_SECRET = 8
_LONGEST_ETAG = 1000
_FAILURES = (BaseError, FileNotFoundError)  # obstore raises Python's own error for a key that is not there


_open: Any = store.from_url  # its types know the options of one store at a time


class ObjectSource:
    """Reads exports from buckets."""

    def check(self, template: str, config: Config, sync_type: str) -> None:
        """Raise ConfigurationError for an address that can't work."""
        _parse(template)

    def fetch(self, request: Request) -> Fetched:
        """Send one GET, after a listing if the name changes. Raises as described at `Source.fetch`."""
        place = _parse(request.template)
        key = fill(place.key, request)
        with _errors(f"{place.bucket}/{key}", request.config):
            bucket = _bucket(place.bucket, request.config)
            find = partial(_matching, bucket, place, key, request)
            if place.options.all:
                return _fetch_all(bucket, place, key, find, request)
            return _fetch(bucket, place, find()[0], request)

    def probe(self, request: Request) -> None:
        """Ask for the object's head."""
        place = _parse(request.template)
        key = fill(place.key, request)
        with _errors(f"{place.bucket}/{key}", request.config):
            bucket = _bucket(place.bucket, request.config)
            for found in _matching(bucket, place, key, request):
                obstore.head(bucket, found.key)

    def put_away(self, request: Request, originals: Sequence[Original]) -> None:
        """Copy the objects and delete the first ones: a store has no rename. See `MovingSource.put_away`."""
        place = _parse(request.template)
        for original in originals:
            with _errors(f"{place.bucket}/{original.path}", request.config):
                bucket = _bucket(place.bucket, request.config)
                with suppress(NotFoundError, FileNotFoundError):
                    if obstore.head(bucket, original.path).get("e_tag") == original.stamp:
                        obstore.copy(bucket, original.path, original.target)
                        obstore.delete(bucket, original.path)


class _Found(NamedTuple):
    """`key`: where the object is. `name`: the key that it had when it came. `target`: the one that it gets when it is applied."""

    key: str
    name: str
    target: str = ""

    def originals(self, etag: str | None) -> tuple[Original, ...]:
        return (Original(path=self.key, target=self.target, stamp=etag),) if self.target and etag else ()


def _matching(bucket: Any, place: _Place, key: str, request: Request) -> list[_Found]:
    """The object with that key; of a pattern the newest one, or all of its date if they are wanted."""
    pattern, folder = checked_pattern(key, place.options), key.rpartition("/")[0]
    if pattern is None:
        return [_Found(key, key)]
    done = posixpath.join(f"/{folder}", fill(place.options.done, request)).lstrip("/") if place.options.done else ""
    names, options, shown = _listed(bucket, folder, done), place.options._replace(done=done), f"{place.bucket}/{folder}"
    found = []
    for one in pattern.chosen(names, options, folder=shown):
        name, moved = posixpath.join(folder, one.name), posixpath.join(done, one.name)
        found.append(_Found(moved, name) if one.done else _Found(name, name, moved if done else ""))
    return found


def _fetch_all(bucket: Any, place: _Place, key: str, find: Callable[[], list[_Found]], request: Request) -> Fetched:
    shown = printable(f"{place.bucket}/{key}", limit=300)
    if request.validators.get("files"):
        tags = [(one, obstore.head(bucket, one.key).get("e_tag")) for one in find()]
        known = validators_of([_validators(place, one, etag) for one, etag in tags])
        if known and known.items() <= request.validators.items():
            return Unchanged(origin=shown, originals=tuple(o for one, etag in tags for o in one.originals(etag)))

    def fetch_one(one: _Found, part: Request) -> Export:
        fetched = _fetch(bucket, place, one, part)
        assert isinstance(fetched, Export)  # nothing is known of a part
        return fetched

    return fetch_parts(find, fetch_one, request, shown=shown)


def _validators(place: _Place, found: _Found, etag: str | None) -> dict[str, str]:
    mine = hashlib.sha256(f"{place.bucket}/{found.name}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return {"object": mine, "etag": etag} if etag and len(etag) < _LONGEST_ETAG else {}


def _fetch(bucket: Any, place: _Place, found: _Found, request: Request) -> Fetched:
    address = f"{place.bucket}/{found.key}"
    origin = printable(address, limit=300)
    known = request.validators.get("etag")
    known = known if known and _validators(place, found, known).items() <= request.validators.items() else None
    with _errors(address, request.config):
        try:
            answer = obstore.get(bucket, found.key, options={"if_none_match": known} if known else None)
        except NotModifiedError:
            return Unchanged(origin=origin, originals=found.originals(known))
        meta = answer.meta
        if meta["size"] > request.max_bytes:
            raise too_large(origin, request.max_bytes)
        if found.key == found.name:  # the time of one that was moved is that of the move
            require_settled(meta["last_modified"].timestamp(), place.options, origin=origin)
        with closing(_Body(answer, origin, request)) as body:
            spooled = spool(body, request, origin=origin)
    if body.read_bytes != meta["size"]:
        spooled.path.unlink(missing_ok=True)
        raise TruncatedError(
            f"{origin}: {body.read_bytes} of {meta['size']} bytes arrived",
            hint="fetch it again; look at the store's proxy",
        )
    etag, version = meta.get("e_tag"), meta.get("version")
    return Export(
        path=spooled.path,
        origin=origin,
        suffix=suffix_of(found.key, spooled),
        size_bytes=spooled.size_bytes,
        sha256=spooled.sha256,
        validators=_validators(place, found, etag),
        details={"version": printable(version, limit=200)} if version else {},
        originals=found.originals(etag),
        written_at=meta["last_modified"].timestamp(),
    )


class _Body:
    """The object as it arrives. Of a large one the next part is fetched while the last one is written."""

    def __init__(self, answer: Any, origin: str, request: Request) -> None:
        self._chunks = iter(answer.stream(min_chunk_size=_STREAM_BYTES))
        self._block = memoryview(b"")
        self._origin = origin
        self._config = request.config
        self._deadline = monotonic() + request.config.fetch_timeout_s
        self._ahead = ThreadPoolExecutor(1) if answer.meta["size"] > _STREAM_BYTES else None
        self._next = self._ahead.submit(self._fetch) if self._ahead else None
        self.read_bytes = 0

    def read(self, size: int, /) -> bytes:
        if not self._block:
            with _errors(self._origin, self._config):
                self._block = memoryview(self._fetched())
            if monotonic() > self._deadline:
                raise self._late()
        part, self._block = self._block[:size], self._block[size:]
        self.read_bytes += len(part)
        return bytes(part)

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.shutdown(wait=False, cancel_futures=True)

    def _fetch(self) -> Any:
        return next(self._chunks, b"")

    def _fetched(self) -> Any:
        if self._ahead is None or self._next is None:
            return self._fetch()
        try:
            found = self._next.result(timeout=max(self._deadline - monotonic(), 0.0))
        except FutureTimeoutError:
            raise self._late() from None
        self._next = self._ahead.submit(self._fetch) if found else None
        return found

    def _late(self) -> TransientSourceError:
        return TransientSourceError(
            f"{self._origin} did not arrive within {self._config.fetch_timeout_s} s",
            hint="raise ARCHISYNC_FETCH_TIMEOUT_S",
        )


def _listed(bucket: Any, folder: str, done: str) -> Iterator[Listed]:
    """The objects in the folder, and in the folders inside it, which don't match and are counted; and those in the folder of `done`."""
    start, moved = f"{folder}/" if folder else "", f"{done}/" if done else ""
    for key, written in _keys(bucket, folder):
        is_done = bool(moved) and key.startswith(moved)
        yield Listed(key.removeprefix(moved if is_done else start), written, is_done)
    if moved and not moved.startswith(start):
        for key, written in _keys(bucket, done):
            yield Listed(key.removeprefix(moved), written, done=True)


def _keys(bucket: Any, folder: str) -> Iterator[tuple[str, float]]:
    for chunk in obstore.list(bucket, prefix=folder or None, chunk_size=1000):
        for meta in chunk:
            yield meta["path"], meta["last_modified"].timestamp()


def _bucket(address: str, config: Config) -> Any:
    """The store, with what the environment says about it. Raises ConfigurationError."""
    scheme = address.partition(":")[0]
    prefix = _STORES[scheme].prefix
    given = {name.lower(): value for name, value in config.environment.items() if name.startswith(prefix) and value}
    options = {name: value for name, value in given.items() if _is_known(scheme, prefix, name)}
    endpoint = config.text("AWS_ENDPOINT_URL_S3") or config.text("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        options["aws_endpoint_url"] = endpoint
    try:
        return _open(
            address,
            config=options,
            client_options={
                "timeout": timedelta(seconds=config.fetch_timeout_s),
                "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
                "allow_http": any(value.startswith("http://") for value in options.values()),
            },
            # A retry here would go on in the middle of a body, and trust a proxy that forgets the range. Ours begin anew.
            retry_config={"max_retries": 0},
        )
    except (BaseError, ValueError) as exc:
        raise ConfigurationError(
            f"the store can't be opened: {_said(exc, config)}", hint=f"look at the {prefix}… variables of the worker"
        ) from exc


@lru_cache
def _is_known(scheme: str, prefix: str, name: str) -> bool:
    """Whether the variable is one of the store's: AWS_PAGER and the like are for other programs.

    AWS_TIMEOUT and the like, which are about the client's connections, are left to our own settings: obstore panics at them.
    """
    return not _opens(scheme, client_options={name.removeprefix(prefix.lower()): "x"}) and _opens(
        scheme, config={name: "x"}
    )


def _opens(scheme: str, **options: Any) -> bool:
    """Whether obstore knows the options."""
    try:
        _open(f"{scheme}://bucket/x", **options)
    except BaseError as exc:  # known, unless it says otherwise; x is no value for it, or not enough alone
        return not isinstance(exc, UnknownConfigurationKeyError)
    except ValueError as exc:
        return not str(exc).startswith("Invalid key")
    return True


@contextmanager
def _errors(address: str, config: Config) -> Iterator[None]:
    try:
        yield
    except _FAILURES as exc:
        raise _meaning(exc, printable(address, limit=300), config) from exc


def _meaning(exc: Exception, origin: str, config: Config) -> SyncError:
    said, store_of_origin = _said(exc, config), _STORES[origin.partition(":")[0]]
    if isinstance(exc, NotFoundError | FileNotFoundError):
        return NoExportError(
            f"no export at {origin}",
            hint="check ARCHISYNC_SOURCE, the endpoint, and that the ERP has written the export",
        )
    if _NO_CREDENTIALS.search(said):
        return AuthenticationError(f"{origin}: there are no credentials", hint=f"set {store_of_origin.credentials}")
    if isinstance(exc, PermissionDeniedError | UnauthenticatedError) or _LOGIN_REFUSED.search(said):
        return AuthenticationError(
            f"{origin}: the store refuses our credentials: {said}", hint="renew them, or grant reading"
        )
    wait_s = _THROTTLED_S if _THROTTLED.search(said) else None
    return TransientSourceError(
        f"{origin} can't be read: {said}",
        hint=f"look at {store_of_origin.place}",
        retry_after_s=wait_s,
    )


def _said(exc: Exception, config: Config) -> str:
    """The error's first words, without a secret of the environment."""
    text = re.sub(r"\s+", " ", str(exc).partition("Debug source")[0])
    for name, value in config.environment.items():
        if (
            name.startswith(tuple(known.prefix for known in _STORES.values()))
            and len(value) >= _SHORTEST_SECRET
            and "ENDPOINT" not in name
        ):
            text = text.replace(value, "***")
    return printable(redact(text.strip()), limit=300)


class _Place(NamedTuple):
    """`bucket` is an address without a key: `s3://bucket`."""

    bucket: str
    key: str
    options: Options


def _parse(template: str) -> _Place:
    """The parts of the address. Raises ConfigurationError."""
    address, options = split_options(split_member(template)[0])
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigurationError("the source is no address of a bucket and a key", hint=_HINT)
    scheme, name = found[1].lower(), found[2]
    if has_placeholder(name) or "@" in name or "?" in name:
        raise ConfigurationError("the source's bucket has a placeholder or credentials in it", hint=_HINT)
    pattern = checked_pattern(found[3], options)
    if options.done and (pattern is None or options.by_time):
        raise ConfigurationError(
            "a bucket has no rename, so done= needs a name that changes, and the newest by its name",
            hint="for example s3://bucket/{agent}/{type}_{date:%Y%m%d}.csv?done=read",
        )
    if options.done and {"..", "."} & set(options.done.split("/")):
        raise ConfigurationError(
            "the source's done= has a . or .. in it", hint="name the folder from the bucket's top: done=/read"
        )
    return _Place(f"{scheme}://{name}", found[3], options)
