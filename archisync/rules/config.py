"""Configuration: environment variables, read once, checked with a hint, never printed with a secret in them.

`VARIABLES` is the one list of them; the README's table is checked against it. Nothing here falls back to an embedded
database: what is missing is an error that says what to set.

Every command imports this module, an idle tick too: what few of them need is imported, and compiled, where it is used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, cast
from zoneinfo import ZoneInfo

from archisync.base.errors import ConfigurationError

if TYPE_CHECKING:
    from archisync.rules.synctypes import SyncType

Locale = Literal["iso", "it"]

AGENT_BOUND_S = 300
"""How long one worker goes on with the runs of one agent, so that other agents' runs get their turn."""


class Variable(NamedTuple):
    """One of the environment."""

    name: str
    default: str
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable(name="ARCHISYNC_DATABASE_URL", default="(required)", meaning="PostgreSQL, `postgresql://user@host/db`"),
    Variable(
        name="ARCHISYNC_REDIS_URL",
        default="(required)",
        meaning="Redis or Valkey, `redis://host:6379/0`; `rediss://…` over TLS, `redis+sentinel://…`",
    ),
    Variable(
        name="ARCHISYNC_SOURCE",
        default="(required)",
        meaning="where exports are: a path, `https://…` or `exec:` and a program, with `{agent}` and `{type}`",
    ),
    Variable(name="ARCHISYNC_SOURCE_<TYPE>", default="", meaning="the same for one type, `ARCHISYNC_SOURCE_ORDERS`"),
    Variable(
        name="ARCHISYNC_INTERVAL_<TYPE>", default="", meaning="minutes that `db migrate` seeds; later the table decides"
    ),
    Variable(
        name="ARCHISYNC_LOCALE",
        default="iso",
        meaning="numbers in exports: `iso` (1234.56) or `it` (1.234,56); PDF reports are `it`",
    ),
    Variable(name="ARCHISYNC_LOCALE_<TYPE>", default="", meaning="the same for one type"),
    Variable(
        name="ARCHISYNC_CSV_DELIMITER",
        default="",
        meaning="`comma`, `semicolon`, `tab` or `pipe`; else it is found in the header line",
    ),
    Variable(
        name="ARCHISYNC_CSV_ENCODING",
        default="",
        meaning="`utf-8`, `utf-16`, `utf-16-le`, `utf-16-be`, `cp1252`, `cp850`, `iso-8859-1` or `iso-8859-15`; else it is detected",
    ),
    Variable(
        name="ARCHISYNC_CSV_QUOTING",
        default="",
        meaning="`none`: a quote is a character like any other; else cells may stand in double quotes",
    ),
    Variable(
        name="ARCHISYNC_CSV_<NAME>_<TYPE>",
        default="",
        meaning="one of these three for one type, `ARCHISYNC_CSV_ENCODING_DDT`",
    ),
    Variable(
        name="ARCHISYNC_ALIASES_<TYPE>",
        default="",
        meaning='further labels of columns, as JSON: `{"KUNDENNR": "customer_id", "NOTE": ""}` (empty: ignore the column)',
    ),
    Variable(name="ARCHISYNC_TIMEZONE", default="Europe/Rome", meaning="of times in exports that don't name one"),
    Variable(name="ARCHISYNC_QUEUE", default="archisync", meaning="name of the RQ queue"),
    Variable(
        name="ARCHISYNC_LEASE_S", default="120", meaning="seconds after which a silent worker's run is taken back"
    ),
    Variable(
        name="ARCHISYNC_REDELIVER_AFTER_S", default="30", meaning="seconds after which a lost delivery is repeated"
    ),
    Variable(name="ARCHISYNC_MAX_ATTEMPTS", default="3", meaning="attempts of one run before it is `failed`"),
    Variable(name="ARCHISYNC_RETRY_DELAY_S", default="60", meaning="delay of the first retry; doubles with each"),
    Variable(name="ARCHISYNC_RUN_TIMEOUT_S", default="1800", meaning="seconds that one run may take"),
    Variable(
        name="ARCHISYNC_WORKER_SYNCS", default="1000", meaning="syncs after which a worker replaces its child process"
    ),
    Variable(
        name="ARCHISYNC_WORKER_MEMORY_BYTES",
        default="536870912",
        meaning="memory above which a worker replaces its child process, between two syncs",
    ),
    Variable(
        name="ARCHISYNC_DATABASE_TIMEOUT_S", default="30", meaning="seconds that PostgreSQL may take over one statement"
    ),
    Variable(name="ARCHISYNC_MAX_EXPORT_BYTES", default="2147483648", meaning="largest export, unpacked"),
    Variable(name="ARCHISYNC_PDF_TIMEOUT_S", default="600", meaning="seconds that reading one PDF report may take"),
    Variable(
        name="ARCHISYNC_PDF_MEMORY_BYTES", default="1073741824", meaning="address space of the process that reads it"
    ),
    Variable(name="ARCHISYNC_FETCH_TIMEOUT_S", default="300", meaning="seconds that one download or program may take"),
    Variable(name="ARCHISYNC_HTTP_TOKEN", default="", meaning="bearer token for `http(s)://` sources"),
    Variable(name="ARCHISYNC_HTTP_USER", default="", meaning="user name for basic authentication"),
    Variable(name="ARCHISYNC_HTTP_PASSWORD", default="", meaning="its password"),
    Variable(name="ARCHISYNC_HTTP_HEADERS", default="", meaning='further headers, as JSON: `{"X-Api-Key": "…"}`'),
    Variable(name="ARCHISYNC_HTTP_CERT", default="", meaning="client certificate, a PEM file"),
    Variable(name="ARCHISYNC_HTTP_KEY", default="", meaning="its key, a PEM file, unless the certificate's has it"),
    Variable(
        name="ARCHISYNC_HTTP_<NAME>_<TYPE>",
        default="",
        meaning="one of these six for one type, which then gets none of the common ones: `ARCHISYNC_HTTP_TOKEN_ORDERS`",
    ),
    Variable(
        name="ARCHISYNC_HTTP_CA", default="", meaning="PEM file of the only authorities trusted; else the system's"
    ),
    Variable(
        name="ARCHISYNC_HTTP_ALLOW_PRIVATE",
        default="",
        meaning="hosts, addresses or CIDRs that may be fetched from though not public, or `yes` for all",
    ),
    Variable(
        name="ARCHISYNC_EXEC_ENV",
        default="",
        meaning="variables that `exec:` programs get: `ERP_TOKEN,ODBC*` (a prefix)",
    ),
    Variable(
        name="ARCHISYNC_EXEC_MEMORY_BYTES", default="0", meaning="address space of an `exec:` program; 0: no limit"
    ),
    Variable(
        name="ARCHISYNC_HOOK",
        default="",
        meaning="told once when a run is held, a pair degrades or recovers: `https://…` or `exec:` and a program",
    ),
    Variable(name="ARCHISYNC_HISTORY_DAYS", default="90", meaning="days that finished runs are kept"),
)


def variable_names() -> list[str]:
    """Every name that a variable may have, those of each type included. For `doctor`."""
    from archisync.rules.synctypes import SYNC_TYPES

    names: list[str] = []
    for variable in VARIABLES:
        stem, _, rest = variable.name.partition("<NAME>")  # stands for those above it that begin so
        for name in [name + rest for name in names if name.startswith(stem)] if rest else [stem]:
            names += [name.replace("<TYPE>", kind.upper()) for kind in SYNC_TYPES] if "<TYPE>" in name else [name]
    return names


_DEFAULTS = {v.name: v.default for v in VARIABLES}


REDIS_SCHEMES = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://", "unix://")
_CUT_PASSWORD = re.compile(r"redis[^/]*://[^/?#@]*(/[^?]*@|#.*@|\?[^=]*@)")
"""A / in a password ends the host, so that redis-py would take the password for it and name it when it can't connect."""
CSV_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
CSV_ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "cp850", "iso-8859-1", "iso-8859-15")


class CsvDialect(NamedTuple):
    """What is known about a CSV file before it is read; None: to be detected. `quoted`: double quotes may enclose a cell."""

    delimiter: str | None = None
    encoding: str | None = None
    quoted: bool = True


DETECT = CsvDialect()


class PdfLimits(NamedTuple):
    """What reading one PDF report may take: wall and processor seconds, address space, bytes of its cells."""

    timeout_s: int = 600
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 31


DEFAULT_PDF_LIMITS = PdfLimits()


class Config:
    """What the environment says. Build it with `Config.from_environment`; each accessor raises ConfigurationError.

    No tuple, which a careless `%` would print with the passwords in it.
    """

    def __init__(self, *, environment: Mapping[str, str]) -> None:
        self.environment = environment

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Config:
        return cls(environment=environment)

    def __repr__(self) -> str:
        return "Config(…)"  # the environment holds passwords

    def _get(self, name: str) -> str:
        return self.environment.get(name, "").strip()

    def text(self, name: str) -> str:
        """The variable as it is set, without blanks around it; empty when it is not. For sources' own settings."""
        return self._get(name)

    def _require(self, name: str, example: str) -> str:
        value = self._get(name)
        if not value:
            raise ConfigurationError(f"{name} is not set", hint=f"export {name}={example}   (or try: archisync demo)")
        return value

    @property
    def database_url(self) -> str:
        url = self._require("ARCHISYNC_DATABASE_URL", "postgresql://user@host/db")
        scheme, separator, rest = url.partition("://")
        place, _, database = rest.partition("?")[0].partition("/")
        if separator and (
            place.count("@") > 1 or "@" in database
        ):  # libpq would take a part of the password for the host
            raise ConfigurationError(
                f"ARCHISYNC_DATABASE_URL has an @ too many between {scheme}:// and the database",
                hint="in a password, write %40 for @, %2F for / and %3A for :",
            )
        return url

    @property
    def redis_url(self) -> str:
        url = self._require("ARCHISYNC_REDIS_URL", "redis://host:6379/0")
        if not url.startswith(REDIS_SCHEMES):  # whatever it is, it may be a password
            raise ConfigurationError(
                "ARCHISYNC_REDIS_URL can't be read as a Redis URL",
                hint=f"it begins with {', '.join(REDIS_SCHEMES[:-1])} or {REDIS_SCHEMES[-1]}",
            )
        if "@" in url and _CUT_PASSWORD.match(url):
            raise ConfigurationError(
                "ARCHISYNC_REDIS_URL has a /, ? or # before its @",
                hint="in a password, write %2F for /, %3F for ?, %23 for # and %40 for @",
            )
        return url

    def source(self, sync_type: SyncType) -> str:
        """The source template of a type: its own variable, or the common one."""
        own = self._get(f"ARCHISYNC_SOURCE_{sync_type.name.upper()}")
        return own or self._require("ARCHISYNC_SOURCE", "'/exports/{agent}/{type}.csv'")

    def seed_interval(self, sync_type: SyncType) -> int:
        """Minutes that `db migrate` seeds for a type that has no row yet."""
        from archisync.rules.synctypes import MAX_INTERVAL_MINUTES, MIN_INTERVAL_MINUTES

        name = f"ARCHISYNC_INTERVAL_{sync_type.name.upper()}"
        if not self._get(name):
            return sync_type.default_interval_minutes
        return self._number(name, MIN_INTERVAL_MINUTES, MAX_INTERVAL_MINUTES)

    def locale(self, sync_type: SyncType, otherwise: Locale = "iso") -> Locale:
        """How the type's numbers are written; `otherwise` where nothing is configured."""
        own = f"ARCHISYNC_LOCALE_{sync_type.name.upper()}"
        name = own if self._get(own) else "ARCHISYNC_LOCALE"
        value = self._get(name) or otherwise
        if value not in ("iso", "it"):
            raise ConfigurationError(f"{name} is {value!r}", hint="allowed: iso, it")
        return cast(Locale, value)

    def csv_dialect(self, sync_type: SyncType) -> CsvDialect:
        """How the type's CSV exports are written, as far as that is configured."""
        delimiter = self._choice("ARCHISYNC_CSV_DELIMITER", sync_type, CSV_DELIMITERS)
        encoding = self._choice("ARCHISYNC_CSV_ENCODING", sync_type, {name: name for name in CSV_ENCODINGS})
        quoting = self._choice("ARCHISYNC_CSV_QUOTING", sync_type, {"none": "none", "double": "double"})
        return CsvDialect(delimiter=delimiter, encoding=encoding, quoted=quoting != "none")

    def _choice(self, common: str, sync_type: SyncType, allowed: Mapping[str, str]) -> str | None:
        """What the type's own variable stands for, or else the common one; None when neither is set."""
        own = f"{common}_{sync_type.name.upper()}"
        name = own if self._get(own) else common
        value = self._get(name).lower()
        if value and value not in allowed:
            raise ConfigurationError(f"{name} is {self._get(name)!r}", hint="allowed: " + ", ".join(allowed))
        return allowed[value] if value else None

    def aliases(self, sync_type: SyncType) -> dict[str, str]:
        """Label → field name of the type, or the empty text for a column to ignore."""
        name = f"ARCHISYNC_ALIASES_{sync_type.name.upper()}"
        text = self._get(name)
        if not text:
            return {}
        hint = f'for example {{"KUNDENNR": "{sync_type.key[0]}"}}; fields: ' + ", ".join(
            f.name for f in sync_type.fields
        )
        try:
            found = json.loads(text)
        except ValueError as exc:
            raise ConfigurationError(f"{name} is not JSON: {exc}", hint=hint) from exc
        known = {f.name for f in sync_type.fields} | {""}
        if not isinstance(found, dict) or not all(
            isinstance(field, str) and field in known for field in found.values()
        ):
            raise ConfigurationError(f"{name} must be an object whose values are fields of {sync_type.name}", hint=hint)
        return found

    @property
    def zone(self) -> ZoneInfo:
        name = self._get("ARCHISYNC_TIMEZONE") or _DEFAULTS["ARCHISYNC_TIMEZONE"]
        try:
            return ZoneInfo(name)
        except (OSError, ValueError) as exc:  # ZoneInfoNotFoundError is a KeyError subclass in the stdlib
            raise ConfigurationError(f"ARCHISYNC_TIMEZONE is {name!r}", hint="for example Europe/Rome") from exc
        except KeyError:
            raise ConfigurationError(
                f"there is no time zone {name!r} (ARCHISYNC_TIMEZONE)", hint="for example Europe/Rome"
            ) from None

    @property
    def queue(self) -> str:
        value = self._get("ARCHISYNC_QUEUE") or "archisync"
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
            raise ConfigurationError(f"ARCHISYNC_QUEUE is {value!r}", hint="letters, digits, dot, dash, underscore")
        return value

    @property
    def lease_s(self) -> int:
        return self._number("ARCHISYNC_LEASE_S", 10, 3600)

    @property
    def redeliver_after_s(self) -> int:
        return self._number("ARCHISYNC_REDELIVER_AFTER_S", 5, 3600)

    @property
    def max_attempts(self) -> int:
        return self._number("ARCHISYNC_MAX_ATTEMPTS", 1, 20)

    @property
    def retry_delay_s(self) -> int:
        return self._number("ARCHISYNC_RETRY_DELAY_S", 0, 3600)

    @property
    def run_timeout_s(self) -> int:
        return self._number("ARCHISYNC_RUN_TIMEOUT_S", 10, 86400)

    @property
    def worker_syncs(self) -> int:
        """1: a child process for each delivery."""
        return self._number("ARCHISYNC_WORKER_SYNCS", 1, 1_000_000)

    @property
    def worker_memory_bytes(self) -> int:
        return self._number("ARCHISYNC_WORKER_MEMORY_BYTES", 1, 1 << 48)

    @property
    def database_timeout_s(self) -> int:
        return self._number("ARCHISYNC_DATABASE_TIMEOUT_S", 1, 3600)

    @property
    def max_export_bytes(self) -> int:
        return self._number("ARCHISYNC_MAX_EXPORT_BYTES", 1024, 1 << 40)

    @property
    def pdf_limits(self) -> PdfLimits:
        return PdfLimits(
            timeout_s=self._number("ARCHISYNC_PDF_TIMEOUT_S", 1, 86400),
            memory_bytes=self._number("ARCHISYNC_PDF_MEMORY_BYTES", 1 << 28, 1 << 48),
            output_bytes=self.max_export_bytes,
        )

    @property
    def fetch_timeout_s(self) -> int:
        return self._number("ARCHISYNC_FETCH_TIMEOUT_S", 1, 86400)

    @property
    def exec_memory_bytes(self) -> int:
        """0: no limit."""
        return self._number("ARCHISYNC_EXEC_MEMORY_BYTES", 0, 1 << 48)

    @property
    def history_days(self) -> int:
        return self._number("ARCHISYNC_HISTORY_DAYS", 1, 36500)

    @property
    def hook(self) -> str | None:
        """Who is told of changes; it may hold a secret, so it is never shown. Raises ConfigurationError."""
        value = self._get("ARCHISYNC_HOOK")
        if not value:
            return None
        if not value.startswith(("https://", "http://", "exec:")):
            raise ConfigurationError(
                "ARCHISYNC_HOOK is neither an address nor a program",
                hint="https://chat.example/hook   or: exec:/usr/local/bin/notify",
            )
        return value

    def _number(self, name: str, low: int, high: int) -> int:
        text = self._get(name) or _DEFAULTS.get(name, "")
        if not re.fullmatch(r"[0-9]{1,15}", text) or not low <= int(text) <= high:
            raise ConfigurationError(f"{name} is {text!r}", hint=f"a whole number from {low} to {high}")
        return int(text)

    def require_all(self) -> None:
        """Check that everything a scheduled sync needs is set, before anything is written."""
        from archisync.rules.synctypes import SYNC_TYPES

        _ = self.database_url, self.redis_url, self.zone, self.queue
        _ = self.lease_s, self.redeliver_after_s, self.max_attempts, self.retry_delay_s, self.run_timeout_s
        _ = self.database_timeout_s, self.max_export_bytes, self.history_days, self.pdf_limits
        _ = self.worker_syncs, self.worker_memory_bytes
        for sync_type in SYNC_TYPES.values():
            _ = self.source(sync_type), self.locale(sync_type), self.csv_dialect(sync_type), self.aliases(sync_type)
