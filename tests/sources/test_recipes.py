"""The programs that the guide names, as one line each, against servers of other make: the very lines of its table are what is fetched."""

import re
import sqlite3
import subprocess
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
import trustme

from archisync.base.errors import AuthenticationError, NoExportError, SourceError, TransientSourceError
from archisync.formats import RawRow, open_table
from archisync.sources import Export, check_template
from archisync.standalone.folders import temporary_folder
from tests.conftest import REPOSITORY
from tests.support.fetching import CANARY, CONTENT, fetched, refused, request_of
from tests.support.servers import needs, running_dovecot, running_ftps, running_mariadb, running_smbd

GUIDE = (REPOSITORY / "examples/guides/connect.md").read_text("utf-8")
RCLONE = "WebDAV, SharePoint, Google Drive and whatever rclone knows"
RECIPES: dict[str, str] = dict(re.findall(r"^\| ([^|]+) \| `(exec:[^`]+)`", GUIDE, re.M))


def _recipe(name: str, **words: str) -> str:
    """The guide's line, with other words for what is the reader's own."""
    line = RECIPES[name]
    for word, other in words.items():
        shown = {"host": "files.example", "file": "/srv/erp.db"}[word]
        assert shown in line
        line = line.replace(shown, other)
    check_template(line)
    return line


def _program(folder: Path, name: str) -> Path:
    """One of the guide's programs, as it is there."""
    found = re.search(rf"cat > {name} <<'END'\n(.*?\n)END\n", GUIDE, re.DOTALL)
    assert found is not None
    program = folder / name
    program.write_text(found[1])
    program.chmod(0o755)
    return program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The root of a server, with the export of agent-1 in it."""
    path = tmp_path / "root" / "exports" / "out" / "agent-1"
    path.mkdir(parents=True)
    (path / "orders.csv").write_bytes(CONTENT)
    return tmp_path / "root"


def _rows(export: Export) -> list[tuple[str | None, ...]]:
    table = open_table(export)
    rows = [row.cells for row in table.rows() if isinstance(row, RawRow)]
    return [tuple(table.labels), *rows]


def test_each_recipe_of_the_guide_is_typed_here() -> None:
    assert set(RECIPES) == {"FTPS", "a Windows share", RCLONE, "SQLite", "MySQL or MariaDB"}


@needs("vsftpd", "curl")
def test_ftps(tmp_path: Path, folder: Path) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login anonymous password {CANARY}\n")
    with running_ftps(folder / "exports", tmp_path / "server.pem") as port:
        template = _recipe("FTPS", host=f"127.0.0.1:{port}")
        trusted = {
            "HOME": str(tmp_path),
            "CURL_CA_BUNDLE": str(tmp_path / "ca.pem"),
            "ARCHISYNC_EXEC_ENV": "CURL_CA_BUNDLE",
        }
        assert (
            fetched(request_of(tmp_path, template, max_bytes=10**6, validators=None, **trusted)).path.read_bytes()
            == CONTENT
        )
        (tmp_path / "again").mkdir()
        strange = refused(request_of(tmp_path / "again", template, HOME=str(tmp_path)))
        assert "exit code 60" in strange.message, "the certificate is checked"
        (folder / "exports" / "out" / "agent-2").mkdir()
        missing = refused(
            request_of(tmp_path / "again", template, max_bytes=10**6, validators=None, agent_id="agent-2", **trusted)
        )
        assert (type(missing), "exit code 78" in missing.message) == (SourceError, True)
        assert CANARY not in strange.message + missing.message


@needs("smbd", "rclone")
def test_a_windows_share(tmp_path: Path, folder: Path) -> None:
    state = tmp_path / "smbd"
    state.mkdir()
    with running_smbd(state, folder / "exports", CANARY) as port:
        hidden = subprocess.run(
            ["rclone", "obscure", CANARY], check=True, capture_output=True, text=True
        ).stdout.strip()
        configuration = tmp_path / ".config" / "rclone" / "rclone.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text(
            f"[share]\ntype = smb\nhost = 127.0.0.1\nport = {port}\nuser = root\npass = {hidden}\n"
        )
        template = _recipe("a Windows share")
        assert fetched(request_of(tmp_path, template, HOME=str(tmp_path))).path.read_bytes() == CONTENT
        (tmp_path / "again").mkdir()
        missing = refused(request_of(tmp_path / "again", template, agent_id="agent-2", HOME=str(tmp_path)))
        assert (type(missing), "not found" in missing.message) == (SourceError, True)


@needs("rclone")
def test_whatever_rclone_knows(tmp_path: Path, folder: Path) -> None:
    configuration = tmp_path / ".config" / "rclone" / "rclone.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(f"[erp]\ntype = alias\nremote = {folder}/exports\n")
    template = _recipe(RCLONE)
    assert fetched(request_of(tmp_path, template, HOME=str(tmp_path))).path.read_bytes() == CONTENT


@needs("sqlite3")
def test_sqlite(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "erp.db") as database:
        database.execute("create table orders (agent text, order_id text, created_at text, description text)")
        values = [
            ("agent-1", "1", "2026-01-02", 'a "b", c\nd;è'),
            ("agent-1", "2", "2026-01-03", None),
            ("agent-2", "3", "2026-01-04", "x"),
        ]
        database.executemany("insert into orders values (?, ?, ?, ?)", values)
    database.close()
    export = fetched(request_of(tmp_path, _recipe("SQLite", file=str(tmp_path / "erp.db"))))
    assert _rows(export) == [
        ("agent", "order_id", "created_at", "description"),
        ("agent-1", "1", "2026-01-02", 'a "b", c\nd;è'),
        ("agent-1", "2", "2026-01-03", ""),
    ]


@needs("mariadbd", "mysql")
def test_mysql(tmp_path: Path) -> None:
    statements = (
        "create database erp; use erp; create table orders (agent varchar(20), order_id varchar(20), created_at date, total_amount"
        " decimal(20, 4), description text character set utf8mb4);"
        "insert into orders values ('agent-1', '1', '2026-01-02', 1234567890123.4500, NULL), ('agent-2', '9', NULL, 1, 'x'),"
        r""" ('agent-1', '2', '2026-01-03', -0.5, 'a "b"\t\\ c\nè');"""
    )
    with running_mariadb(tmp_path, statements) as options:
        (tmp_path / ".my.cnf").write_text(options.read_text())
        export = fetched(request_of(tmp_path, _recipe("MySQL or MariaDB"), HOME=str(tmp_path)))
        assert _rows(export) == [
            ("order_id", "created_at", "total_amount", "description"),
            ("1", "2026-01-02", "1234567890123.4500", None),
            ("2", "2026-01-03", "-0.5000", 'a "b"\t\\ c\nè'),
        ]


@pytest.mark.parametrize("line_end", ["", "\x85", "\n"])
def test_fields_of_fixed_width_in_ebcdic(tmp_path: Path, line_end: str) -> None:
    """The guide's program. Without line ends, as a file of fixed records is transferred; with NEL, and with what a transfer makes of it."""
    program = _program(tmp_path, "fixed-width")
    records = ["1001 Bar Centrale   Forlì ", "1002 Osteria del Po Torino"]
    (tmp_path / "agent-1.txt").write_bytes("".join(record + line_end for record in records).encode("cp500"))
    template = f"exec:{program} {tmp_path}/{{agent}}.txt cp500 customer_id:5 name:15 city:6"
    assert _rows(fetched(request_of(tmp_path, template))) == [
        ("customer_id", "name", "city"),
        ("1001", "Bar Centrale", "Forlì"),
        ("1002", "Osteria del Po", "Torino"),
    ]


@pytest.fixture
def reachable() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


def _deliver(maildir: Path, number: int, subject: str, **attachments: bytes) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = subject, "erp@erp.example", "archisync@company.example"
    mail.set_content("Buongiorno, in allegato l'esportazione.")
    for name, content in attachments.items():
        mail.add_attachment(content, maintype="text", subtype="csv", filename=f"{name}.csv")
    for folder in ("cur", "new", "tmp"):
        (maildir / folder).mkdir(parents=True, exist_ok=True)
    (maildir / "new" / f"{1_700_000_000 + number}.M1P1.erp").write_bytes(mail.as_bytes(policy=SMTP))


@needs("dovecot")
def test_a_mail_with_an_attachment(tmp_path: Path, reachable: Path) -> None:
    authority, server = trustme.CA(), tmp_path / "server.pem"
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(server)
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login erp password {CANARY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    mails = reachable / "mail" / "ERP"
    content = CONTENT + "2,2026-01-03 Forlì\r\n".encode()  # as it is, with whatever line ends
    _deliver(mails, 1, "older", **{"orders-agent-1": CONTENT})
    _deliver(mails, 2, "newer", **{"invoices-agent-1": b"other", "orders-agent-1": content})
    _deliver(mails, 3, "without")
    program = _program(tmp_path, "from-mail")
    trusted: dict[str, Any] = {"HOME": str(tmp_path), "ARCHISYNC_EXEC_ENV": "SSL_CERT_FILE"}

    def template(folder: str = "ERP") -> str:
        return f"exec:{program} 127.0.0.1:{port} {folder} {{type}}-{{agent}}.csv"

    with running_dovecot(reachable, server, CANARY) as port:
        known = trusted | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        assert fetched(request_of(tmp_path, template(), **known)).path.read_bytes() == content
        again = tmp_path / "again"
        again.mkdir()
        assert isinstance(refused(request_of(again, template(), agent_id="agent-2", **known)), NoExportError)
        assert "CERTIFICATE_VERIFY_FAILED" in refused(request_of(again, template(), **trusted)).message
        assert "(Nowhere)" in refused(request_of(again, template("Nowhere"), **known)).message
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login erp password wrong\n")
        wrong = refused(request_of(again, template(), **known))
        assert (type(wrong), "refuses erp" in wrong.message) == (AuthenticationError, True)
    assert isinstance(refused(request_of(again, template(), **known)), TransientSourceError)
