"""The one table of settings: environment variables with their defaults and meanings, and the typed values that they give.

No setting falls back to an embedded server: what is missing is an error that says what to set, and no error shows a secret. Every command
imports this module, an idle tick too, so imports that few of them need are in the functions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from archisync.base.errors import ConfigurationError
from archisync.rules import serverurls, websettings, zones
from archisync.rules.settings import Credential, Given, Setting, TypeSetting, Variable, any_text, choice, whole_number

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from archisync.rules.synctypes import SyncType
    from archisync.rules.values import Locale

AGENT_SLICE_S = 30
"""How long one worker goes on with the runs of one agent while others wait, so that they get their turn."""
AGENT_BOUND_S = 300
"""And while nobody waits. No run is begun later."""
LOCALES: Mapping[str, Locale] = {"iso": "iso", "it": "it"}
CSV_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
CSV_ENCODINGS = (
    *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "cp850", "cp1250", "cp1251", "cp1253", "cp1254", "cp1257"),
    *("iso-8859-1", "iso-8859-2", "iso-8859-15", "mac-roman"),
)


class CsvDialect(NamedTuple):
    """What is known about a CSV file before it is read; None: to be detected. `quoted`: double quotes may enclose a cell.

    `open_end`: the last line may lack its line end. `ignored`: words that begin lines which are no rows. `title_lines`: lines above the
    header; with 0 they are found by the columns that the sync type requires. `escaped`: a backslash begins an escape, as in MySQL's files.
    """

    delimiter: str | None = None
    encoding: str | None = None
    quoted: bool = True
    open_end: bool = False
    ignored: tuple[str, ...] = ()
    title_lines: int = 0
    escaped: bool = False

    @property
    def given(self) -> list[str]:
        """The names of what is not left open."""
        names = ("delimiter", "encoding", "quoting", "final line end", "ignored rows", "title lines", "escapes")
        return [name for name, value, left_open in zip(names, self, DETECT, strict=True) if value != left_open]


DETECT = CsvDialect()


class ReaderLimits(NamedTuple):
    """What reading one PDF report or workbook may take: wall and processor seconds, address space, bytes of its cells."""

    timeout_s: int = 600
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 31


DEFAULT_READER_LIMITS = ReaderLimits()


def _seed_interval(name: str, text: str, sync_type: SyncType) -> int:
    from archisync.rules.synctypes import MAX_INTERVAL_MINUTES, MIN_INTERVAL_MINUTES

    if not text:
        return sync_type.default_interval_minutes
    return whole_number(MIN_INTERVAL_MINUTES, MAX_INTERVAL_MINUTES)(name, text)


def _words(_name: str, text: str, _sync_type: SyncType) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _aliases(name: str, text: str, sync_type: SyncType) -> dict[str, str]:
    if not text:
        return {}
    import json

    fields = [field.name for field in sync_type.fields]
    hint = f'for example {{"KUNDENNR": "{sync_type.key[0]}"}}; fields: ' + ", ".join(fields)
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise ConfigurationError(f"{name} is not JSON: {exc}", hint=hint) from exc
    if not isinstance(found, dict) or not all(field in ("", *fields) for field in found.values()):
        raise ConfigurationError(f"{name} must be an object whose values are fields of {sync_type.name}", hint=hint)
    return found


def _time_zone(name: str, text: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(text)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{name} is {text!r}", hint=zones.hint()) from exc
    except KeyError:  # ZoneInfoNotFoundError
        raise ConfigurationError(f"there is no time zone {text!r} ({name})", hint=zones.hint()) from None


def _queue(name: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ConfigurationError(f"{name} is {text!r}", hint="letters, digits, dot, dash, underscore")
    return text


def _hook(name: str, text: str) -> str | None:
    if text and not text.startswith(("https://", "http://", "exec:")):
        raise ConfigurationError(
            f"{name} is neither an address nor a program",
            hint="https://chat.example/hook   or: exec:/usr/local/bin/notify",
        )
    return text or None


class Config:
    """What the environment says: `config.lease_s`, `config.source(sync_type)`. Reading a wrong setting raises ConfigurationError.

    Each setting stands here once, in the order of the README's table, which a test compares with this one. This is no tuple: a careless
    `%` would print one with the passwords in it.
    """

    database_url = Setting(
        "ARCHISYNC_DATABASE_URL",
        serverurls.database_url,
        "PostgreSQL, `postgresql://user@host/db`",
        example="postgresql://user@host/db",
    )
    redis_url = Setting(
        "ARCHISYNC_REDIS_URL",
        serverurls.redis_url,
        "Redis or Valkey, `redis://host:6379/0`; `rediss://…` over TLS, `redis+sentinel://…`",
        example="redis://host:6379/0",
    )
    source = TypeSetting(
        "ARCHISYNC_SOURCE",
        any_text,
        "where exports are: a path, `https://…`, `sftp://…` or `exec:` and a program, with `{agent}` and `{type}`",
        example="'/exports/{agent}/{type}.csv'",
    )
    seed_interval = TypeSetting(
        "ARCHISYNC_INTERVAL",
        _seed_interval,
        "minutes that `db migrate` writes for a new type; from then on the database decides",
        common=False,
        checked_at_start=False,
    )
    locale = TypeSetting(
        "ARCHISYNC_LOCALE",
        choice(LOCALES),
        "numbers in exports: `iso` (1234.56) or `it` (1.234,56); else `it` in PDF reports and `iso` in all others",
    )
    csv_delimiter = TypeSetting(
        "ARCHISYNC_CSV_DELIMITER",
        choice(CSV_DELIMITERS),
        "`comma`, `semicolon`, `tab` or `pipe`; else it is found in the header line",
    )
    csv_encoding = TypeSetting(
        "ARCHISYNC_CSV_ENCODING",
        choice({name: name for name in CSV_ENCODINGS}),
        "one of " + ", ".join(f"`{name}`" for name in CSV_ENCODINGS) + "; else it is detected",
    )
    csv_quoting = TypeSetting(
        "ARCHISYNC_CSV_QUOTING",
        choice({name: name for name in ("none", "double", "backslash")}),
        "`none`: a quote is a character like any other; `backslash`: MySQL's escapes hold; else cells may stand in double quotes",
    )
    csv_final_line_end = TypeSetting(
        "ARCHISYNC_CSV_FINAL_LINE_END",
        choice({"required": "required", "optional": "optional"}),
        "`optional`: the ERP writes no line end after the last line; else a person is asked, once for each pair",
    )
    csv_ignore_rows = TypeSetting(
        "ARCHISYNC_CSV_IGNORE_ROWS",
        _words,
        "words that begin a line which is no row, as `TOTALE,Totale generale` for a total below the rows",
    )
    csv_title_lines = TypeSetting(
        "ARCHISYNC_CSV_TITLE_LINES",
        whole_number(0, 1000),
        "lines above the header line; else they are found by the columns that the type requires",
        default="0",
    )
    sheet = TypeSetting(
        "ARCHISYNC_SHEET",
        any_text,
        "the sheet of a workbook; else the one that has the columns which the type requires",
    )
    aliases = TypeSetting(
        "ARCHISYNC_ALIASES",
        _aliases,
        'further labels of columns, as JSON: `{"KUNDENNR": "customer_id", "NOTE": ""}` (empty: ignore the column)',
        common=False,
    )
    zone = Setting("ARCHISYNC_TIMEZONE", _time_zone, "of times in exports that don't name one", default="Europe/Rome")
    queue = Setting("ARCHISYNC_QUEUE", _queue, "name of the site's own RQ queue", default="archisync")
    lease_s = Setting(
        "ARCHISYNC_LEASE_S",
        whole_number(10, 3600),
        "seconds after which a silent worker's run is taken back",
        default="120",
    )
    redeliver_after_s = Setting(
        "ARCHISYNC_REDELIVER_AFTER_S",
        whole_number(5, 3600),
        "seconds after which a lost delivery is repeated",
        default="30",
    )
    max_attempts = Setting(
        "ARCHISYNC_MAX_ATTEMPTS", whole_number(1, 20), "attempts of one run before it is `failed`", default="3"
    )
    retry_delay_s = Setting(
        "ARCHISYNC_RETRY_DELAY_S", whole_number(0, 3600), "delay of the first retry; doubles with each", default="60"
    )
    run_timeout_s = Setting(
        "ARCHISYNC_RUN_TIMEOUT_S", whole_number(10, 86400), "seconds that one run may take", default="1800"
    )
    worker_syncs = Setting(
        "ARCHISYNC_WORKER_SYNCS",
        whole_number(1, 1_000_000),
        "syncs after which a worker replaces its child process",
        default="1000",
    )
    worker_memory_bytes = Setting(
        "ARCHISYNC_WORKER_MEMORY_BYTES",
        whole_number(1, 1 << 48),
        "memory above which a worker replaces its child process, between two syncs",
        default="536870912",
    )
    database_timeout_s = Setting(
        "ARCHISYNC_DATABASE_TIMEOUT_S", whole_number(1, 3600), "seconds that one statement may take", default="30"
    )
    max_export_bytes = Setting(
        "ARCHISYNC_MAX_EXPORT_BYTES", whole_number(1024, 1 << 40), "largest export, unpacked", default="2147483648"
    )
    reader_timeout_s = Setting(
        "ARCHISYNC_READER_TIMEOUT_S",
        whole_number(1, 86400),
        "seconds that reading one PDF report or workbook may take",
        default="600",
    )
    reader_memory_bytes = Setting(
        "ARCHISYNC_READER_MEMORY_BYTES",
        whole_number(1 << 28, 1 << 48),
        "address space of the process that reads it",
        default="1073741824",
    )
    fetch_timeout_s = Setting(
        "ARCHISYNC_FETCH_TIMEOUT_S",
        whole_number(1, 86400),
        "seconds that one download or program may take",
        default="300",
    )
    http_token = Credential("ARCHISYNC_HTTP_TOKEN", "bearer token for `http(s)://` sources")
    http_user = Credential("ARCHISYNC_HTTP_USER", "user name for basic authentication", secret=False)
    http_password = Credential("ARCHISYNC_HTTP_PASSWORD", "its password")
    http_token_url = Credential(
        "ARCHISYNC_HTTP_TOKEN_URL", "where a token is to be had, by OAuth 2.0 client credentials", secret=False
    )
    http_client_id = Credential("ARCHISYNC_HTTP_CLIENT_ID", "the client that asks for it", secret=False)
    http_client_secret = Credential("ARCHISYNC_HTTP_CLIENT_SECRET", "its secret")
    http_scope = Credential("ARCHISYNC_HTTP_SCOPE", "the scope: `https://erp.example/.default`", secret=False)
    http_headers = Credential("ARCHISYNC_HTTP_HEADERS", 'further headers, as JSON: `{"X-Api-Key": "…"}`')
    http_cert = Credential("ARCHISYNC_HTTP_CERT", "client certificate, a PEM file", secret=False)
    http_key = Credential("ARCHISYNC_HTTP_KEY", "its key, a PEM file, unless the certificate's has it", secret=False)
    http_ca = Setting("ARCHISYNC_HTTP_CA", any_text, "PEM file of the only authorities trusted; else the system's")
    http_allow_private = Setting(
        "ARCHISYNC_HTTP_ALLOW_PRIVATE",
        any_text,
        "hosts, addresses or CIDRs, each with its port (`erp.example:8080`; else 80 and 443), that may be fetched from though not "
        "public, or `yes` for all",
    )
    sftp_password = TypeSetting(
        "ARCHISYNC_SFTP_PASSWORD",
        any_text,
        "password for `sftp://` sources, or of the key; else keys without one, or an agent",
        secret=True,
    )
    sftp_config = Setting(
        "ARCHISYNC_SFTP_CONFIG", any_text, "ssh_config file for `sftp://` sources; else `~/.ssh/config` of the account"
    )
    sql_password = TypeSetting(
        "ARCHISYNC_SQL_PASSWORD",
        any_text,
        "password for `sql+postgresql://` sources; else `~/.pgpass` of the account",
        secret=True,
    )
    exec_env = Setting(
        "ARCHISYNC_EXEC_ENV", any_text, "variables that `exec:` programs get: `ERP_TOKEN,ODBC*` (a prefix)"
    )
    exec_memory_bytes = Setting(
        "ARCHISYNC_EXEC_MEMORY_BYTES",
        whole_number(0, 1 << 48),
        "address space of an `exec:` program; 0: no limit",
        default="0",
    )
    hook = Setting(
        "ARCHISYNC_HOOK",
        _hook,
        "called once when a run is held, a pair degrades or recovers: `https://…` or `exec:` and a program",
        checked_at_start=False,
        secret=True,  # whoever has the address of a chat's hook can write there
    )
    history_days = Setting(
        "ARCHISYNC_HISTORY_DAYS", whole_number(1, 36500), "days that finished runs are kept", default="90"
    )
    web_token = Setting(
        "ARCHISYNC_WEB_TOKEN",
        websettings.web_token,
        "of the panel: whoever has it may do everything",
        checked_at_start=False,
        secret=True,
    )
    web_operator_token = Setting(
        "ARCHISYNC_WEB_OPERATOR_TOKEN",
        websettings.web_token,
        "of the panel: may sync, pause, decide about held exports and set intervals",
        checked_at_start=False,
        secret=True,
    )
    web_read_token = Setting(
        "ARCHISYNC_WEB_READ_TOKEN",
        websettings.web_token,
        "of the panel: may look",
        checked_at_start=False,
        secret=True,
    )
    web_hosts = Setting(
        "ARCHISYNC_WEB_HOSTS",
        websettings.names,
        "names under which browsers reach the panel, besides localhost: `sync.example.com`",
        checked_at_start=False,
    )
    web_prefix = Setting(
        "ARCHISYNC_WEB_PREFIX",
        websettings.path_prefix,
        "path under which a proxy shows the panel: `/archisync`",
        checked_at_start=False,
    )
    web_proxies = Setting(
        "ARCHISYNC_WEB_PROXIES",
        websettings.networks,
        "addresses or CIDRs of proxies, whose `X-Forwarded-*` and user header are believed",
        checked_at_start=False,
    )
    web_user_header = Setting(
        "ARCHISYNC_WEB_USER_HEADER",
        websettings.header,
        "header in which those proxies name the user who signed in: `X-Forwarded-User`",
        checked_at_start=False,
    )
    web_operators = Setting(
        "ARCHISYNC_WEB_OPERATORS",
        websettings.names,
        "of these users: who may do what the operator's token may; `*`: all",
        checked_at_start=False,
    )
    web_admins = Setting(
        "ARCHISYNC_WEB_ADMINS",
        websettings.names,
        "of these users: who may do everything; all others may look",
        checked_at_start=False,
    )

    def __init__(self, *, environment: Mapping[str, str]) -> None:
        self.environment = environment

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Config:
        return cls(environment=environment)

    def __repr__(self) -> str:
        return "Config(…)"  # the environment holds passwords

    def text(self, name: str) -> str:
        """Any variable, without blanks around it; empty when it is not set. For plug-in sources, which have settings of their own."""
        return self.environment.get(name, "").strip()

    def csv_dialect(self, sync_type: SyncType) -> CsvDialect:
        """How the type's CSV exports are written, as far as that is configured."""
        return CsvDialect(
            delimiter=self.csv_delimiter(sync_type),
            encoding=self.csv_encoding(sync_type),
            quoted=self.csv_quoting(sync_type) != "none",
            open_end=self.csv_final_line_end(sync_type) == "optional",
            ignored=self.csv_ignore_rows(sync_type),
            title_lines=self.csv_title_lines(sync_type),
            escaped=self.csv_quoting(sync_type) == "backslash",
        )

    @property
    def longest_silence_s(self) -> int:
        """A process that was silent for so long has lost its run: the heartbeat ends with the run's time, and the lease after that."""
        return self.run_timeout_s + self.lease_s

    @property
    def reader_limits(self) -> ReaderLimits:
        return ReaderLimits(
            timeout_s=self.reader_timeout_s, memory_bytes=self.reader_memory_bytes, output_bytes=self.max_export_bytes
        )

    def http_credentials(self, type_name: str) -> dict[str, Given]:
        """`TOKEN`, `USER` and so on, each with its variable and text: the type's own ones as soon as one of them is set, so that no server
        gets another one's secret."""
        settings = {s.name.rpartition("_")[2]: s for s in SETTINGS if isinstance(s, Credential)}
        own = {part: s.own_name(type_name) for part, s in settings.items()}
        chosen = own if any(map(self.text, own.values())) else {part: s.name for part, s in settings.items()}
        return {part: Given(name, self.text(name)) for part, name in chosen.items()}

    def require_all(self, *, but: Collection[object] = ()) -> None:
        """Check everything that a scheduled sync needs, before anything is written. `but`: settings that are not needed here. Raises
        ConfigurationError."""
        for setting in SETTINGS:
            if setting.checked_at_start and setting not in but:
                for problem in setting.problems(self.environment):
                    raise problem


SETTINGS = tuple(setting for setting in vars(Config).values() if isinstance(setting, Variable))


def variable_names() -> list[str]:
    """Every environment variable that archisync reads, those of each type included."""
    return [name for setting in SETTINGS for name in setting.variables()]
