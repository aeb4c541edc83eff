"""`archisync type`: the tables that are synced, and a company's own ones, which a TOML file declares."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archisync.base.errors import ExitCode, NotFoundError, UsageError
from archisync.cli.arguments import Columns, Json, Reason, TypeArgument
from archisync.cli.context import App, actor, app, confirm
from archisync.cli.groups import command_group
from archisync.rules.synctypes import SYNC_TYPES, SyncType, sync_type

if TYPE_CHECKING:
    from archisync.actions.types import Plan
    from archisync.formats import Table

commands = command_group("The tables that are synced, and your own ones.")

CHECK_THE_PATH = "check the path, and that this account may read it"
FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="The declaration, a TOML file; - reads standard input.")
]


@commands.command("list")
def list_(ctx: typer.Context, columns: Columns = None, json: Json = False) -> None:
    """Show each type: how often it is fetched, its table, and who declared it.

    Example: archisync type list
    """
    from archisync.store import synctypes

    a = app(ctx)
    with a.database("type list") as db:
        found = synctypes.listed(db)
    if json:
        a.output.json(types=found)
        return
    rows = [
        [t.sync_type, t.scope, t.interval_minutes, t.enabled, t.table_name, t.declared_by or "archisync",
         t.declared_at if t.own else None]
        for t in found
    ]  # fmt: skip
    heads = ["type", "scope", "minutes", "enabled", "table", "declared by", "at"]
    a.output.table(heads, rows, less=["at", "enabled", "scope"], columns=columns)


@commands.command()
def show(
    ctx: typer.Context,
    type_name: TypeArgument,
    toml: Annotated[bool, typer.Option("--toml", help="Print the declaration as a TOML file.")] = False,
    json: Json = False,
) -> None:
    """Show one type: its key, and its fields with their kinds and labels.

    Example: archisync type show orders --toml
    """
    from archisync.observe import documents
    from archisync.rules.declarationtext import as_toml

    a = app(ctx)
    type_ = sync_type(type_name)
    if toml:
        for line in as_toml(type_).splitlines():
            a.output.line(line)
    elif json:
        a.output.json(**documents.declaration(type_))
    else:
        _show(a, type_)


def _show(a: App, type_: SyncType) -> None:
    a.output.line(
        f"{type_.name}: {type_.scope}, every {type_.default_interval_minutes} min, in the table {type_.table}"
    )
    a.output.line(f"key: {', '.join(type_.key)}")
    if type_.after:
        a.output.line(f"after: {', '.join(type_.after)}")
    rows = [[f.name, f.kind, f.required, f.role, ", ".join(f.aliases)] for f in type_.fields]
    a.output.table(["field", "kind", "required", "role", "labels"], rows, less=["role", "required"])


@commands.command()
def draft(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the new type.")],
    export: Annotated[
        str, typer.Option("--from", metavar="FILE", help="An export: CSV, JSON Lines, a workbook or a PDF report.")
    ],
) -> None:
    """Print a declaration to begin with, made from an export. What it guesses has a comment.

    Example: archisync type draft returns --from returns.csv > returns.toml
    """
    from itertools import islice

    from archisync.rules.declarations import parse_toml, read
    from archisync.rules.drafting import MAX_ROWS
    from archisync.rules.drafting import draft as drafted

    a = app(ctx)
    table, printed = _opened(a, export)
    unread: list[str] = []
    text = drafted(
        name,
        Path(export).name,
        table.labels,
        islice(_good_rows(table, unread), MAX_ROWS),
        "it" if printed else "iso",
        unread=unread,
        open_ended="final_line_end" in table.detected,
    )
    read(parse_toml(text.encode(), "the draft"), file="the draft")  # its name may not be allowed
    for line in text.splitlines():
        a.output.line(line)


def _good_rows(table: Table, unread: list[str]) -> Iterator[Sequence[str | None]]:
    from archisync.formats import BadRow

    for row in table.rows():
        if isinstance(row, BadRow):
            unread.append(f"line {row.line}: {row.reason}")
        else:
            yield row.cells


def _opened(a: App, name: str) -> tuple[Table, bool]:
    """The file as a table, and whether it is a printed report. Raises UsageError, ExportError."""
    from archisync.formats import open_table
    from archisync.sources.interface import Export

    path = Path(name)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UsageError(f"{ascii(name)[:80]} is no file", hint=CHECK_THE_PATH)
        suffix = path.suffix.lower()
        export = Export(path=path, origin=path.name, suffix=suffix, size_bytes=size, sha256="")
        return open_table(export, limits=a.config.reader_limits), suffix == ".pdf"
    except (OSError, ValueError) as exc:
        said = exc.strerror if isinstance(exc, OSError) else "it can't be the name of a file"
        raise UsageError(f"{ascii(name)[:80]} can't be read: {said}", hint=CHECK_THE_PATH) from None


@commands.command()
def check(ctx: typer.Context, file: FileArgument) -> None:
    """Say whether a declaration is right, and what `type apply` would do. Without a database the file alone is checked.

    Example: archisync type check returns.toml
    """
    from archisync.actions import types

    a = app(ctx)
    type_ = _declared(file)
    if not a.config.text("ARCHISYNC_DATABASE_URL"):
        types.check(type_, file=_shown(file))
        a.output.line(f"{type_.name}: right; without a database it is not known what apply would do")
        return
    with a.database("type check") as db:
        plan = types.plan_apply(db, actor(), type_, a.config, file=_shown(file))
    a.output.line(f"{type_.name}: right; apply would do: {_what(plan)}")


@commands.command()
def diff(ctx: typer.Context, file: FileArgument) -> None:
    """Compare a declaration with the one in the database. Exits with 1 when they differ, for CI.

    Example: archisync type diff returns.toml
    """
    from difflib import unified_diff

    from archisync.rules.declarationtext import as_toml

    a = app(ctx)
    type_ = _declared(file)
    with a.database("type diff"):
        known = SYNC_TYPES.get(type_.name)
    if known is None:
        raise NotFoundError(f"the database has no type {type_.name}", hint=f"archisync type apply {_shown(file)}")
    ours, theirs = as_toml(type_).splitlines(), as_toml(known).splitlines()
    for line in unified_diff(theirs, ours, "database", _shown(file), lineterm=""):
        a.output.line(line)
    if ours != theirs:
        raise typer.Exit(ExitCode.SYNC_FAILED)
    a.output.say(f"{type_.name}: the database has this declaration")


@commands.command()
def apply(
    ctx: typer.Context,
    file: FileArgument,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements; change nothing.")] = False,
    reason: Reason = None,
) -> None:
    """Create or change a type of your own. Table, triggers, rights, schedule and pairs change in one transaction.

    Example: archisync type apply returns.toml
    """
    from archisync.actions import types

    a = app(ctx)
    type_ = _declared(file)
    with a.database("type apply") as db:
        if sql:
            for line in types.script(db, actor(), type_, a.config, file=_shown(file), why=reason).splitlines():
                a.output.line(line)
            return
        plan = types.apply(db, actor(), type_, a.config, file=_shown(file), why=reason)
    a.output.line(f"{type_.name}: {_what(plan)}")


def _what(plan: Plan) -> str:
    return "; ".join(plan.sentences) or "nothing: the database has this declaration"


@commands.command()
def remove(
    ctx: typer.Context,
    type_name: TypeArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Without asking.")] = False,
    drop_table: Annotated[bool, typer.Option("--drop-table", help="Drop the table with its rows too.")] = False,
    reason: Reason = None,
) -> None:
    """End the schedule of a type of your own. Its history stays, and its table unless --drop-table.

    Example: archisync type remove returns --yes
    """
    from archisync.actions import types

    a = app(ctx)
    if not yes:
        confirm(
            a,
            f"remove the type {type_name}{' and drop its table' if drop_table else ''}?",
            refusal=f"that would remove the type {type_name}",
            hint=f"archisync type remove {type_name} --yes",
        )
    with a.database("type remove") as db:
        type_ = types.remove(db, actor(), type_name, drop_table=drop_table, why=reason)
    kept = "dropped" if drop_table else "kept"
    a.output.line(f"{type_.name}: removed; its table {type_.table} is {kept}")


def _shown(file: str) -> str:
    return "standard input" if file == "-" else file


def _declared(file: str) -> SyncType:
    """The type that the file declares. Raises UsageError when it can't be read, ConfigurationError when it is wrong."""
    from archisync.rules.declarations import MAX_FILE_BYTES, parse_toml, read

    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        said = exc.strerror if isinstance(exc, OSError) else "it can't be the name of a file"
        raise UsageError(f"{ascii(file)[:80]} can't be read: {said}", hint=CHECK_THE_PATH) from None
    return read(parse_toml(content, _shown(file)), file=_shown(file))
