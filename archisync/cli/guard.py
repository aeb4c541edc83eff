"""`archisync guard`: the shares of its known rows that an export may lose or change before it is held."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archisync.base.errors import ExitCode
from archisync.cli.arguments import DataAgentOption, EveryType, Json, OptionalType, Reason, TypeArgument, data_agent
from archisync.cli.context import App, actor, app, one_or_all
from archisync.cli.groups import command_group
from archisync.rules.reasons import COLUMN_SHARES, SHARES, Limits
from archisync.rules.synctypes import SyncType, sync_type

commands = command_group("When an export is held.")


Column = Annotated[str, typer.Argument(metavar="[COLUMN]", help="Only this column; for the rules about values.")]


@commands.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """Show the guard's thresholds. They are the largest shares of rows, and of a column's values, that are applied unasked.

    Example: archisync guard list
    """
    from archisync.observe import documents
    from archisync.store import settings

    a = app(ctx)
    with a.database("guard list") as db:
        found = settings.all_limits(db)
    if json:
        a.output.json(guard=documents.guard(found))
        return
    rows = [[name, limits.drop, limits.delete, limits.rewrite] for name, limits in found.items()]
    a.output.table(["type", "drop %", "delete %", "rewrite %"], rows)
    a.output.line()
    of_values: list[list[object]] = [[rule, None, None, percent] for rule, percent in COLUMN_SHARES.items()]
    of_values += [
        [rule, name, column or None, percent]
        for name, limits in found.items()
        for (rule, column), percent in sorted(limits.columns.items())
    ]
    a.output.table(["rule about values", "type", "column", "%"], of_values)


@commands.command("set")
def set_(
    ctx: typer.Context,
    type_name: TypeArgument,
    share: Annotated[str, typer.Argument(metavar="SHARE", help=", ".join(SHARES))],
    percent: Annotated[str, typer.Argument(metavar="PERCENT", help="0 to 100; 100 switches this one rule off")],
    column: Column = "",
    reason: Reason = None,
) -> None:
    """Change one threshold, of a type or of a column.

    Example: archisync guard set prices rescaled 30 unit_price
    """
    from archisync.actions.settings import change_limits
    from archisync.store import settings

    a = app(ctx)
    type_, value = sync_type(type_name), settings.check_percent(percent)
    with a.database("guard set") as db:
        change_limits(db, actor(), type_, {(share, column): value}, why=reason)
    where = f"{type_.name}, {column}" if column else type_.name
    a.output.line(f"{where}: an export is held above {value} % ({share})")


@commands.command()
def reset(
    ctx: typer.Context,
    type_name: OptionalType = None,
    column: Column = "",
    everything: EveryType = False,
    reason: Reason = None,
) -> None:
    """Put thresholds back to the defaults. Those of one type, of one of its columns, or all with --all.

    Example: archisync guard reset prices
    """
    from archisync.actions.settings import change_limits, set_limits

    a = app(ctx)
    types = one_or_all(a, type_name, everything, question="put the thresholds of all types back", command="guard reset")
    with a.database("guard reset") as db, db.transaction():
        if not column:
            set_limits(db, actor(), dict.fromkeys(types, Limits()), why=reason)
        for type_ in types if column else ():
            change_limits(db, actor(), type_, {(rule, column): None for rule in COLUMN_SHARES}, why=reason)
    for type_ in types:
        a.output.line(
            f"{type_.name}, {column}: the type's thresholds" if column else f"{type_.name}: default thresholds"
        )


@commands.command("test")
def say_of_file(
    ctx: typer.Context,
    type_name: TypeArgument,
    export: Annotated[
        Path, typer.Option("--export", metavar="FILE", help="The export to look at, or a folder of old ones.")
    ],
    agent: DataAgentOption = None,
    json: Json = False,
) -> None:
    """Judge a file as the guard would. Shows which rules came nearest, and writes nothing. Exit code 6 when it would be held.

    Of a folder, each file is judged in the order of their times, against the last one that would not be held.

    Example: archisync guard test customers --agent anna.bianchi --export customers.csv
    """
    from dataclasses import asdict

    from archisync.cli.diff import preview_of
    from archisync.cli.held import show_findings

    a = app(ctx)
    type_ = sync_type(type_name)
    if export.is_dir():
        _replay(a, type_, data_agent(type_, agent), export, json=json)
        return
    found = preview_of(a, type_, data_agent(type_, agent), file=export)
    if json:
        hold = asdict(found.hold) if found.hold else None
        a.output.json(would_be_held=hold, nearest=[asdict(near) for near in found.nearest], exports=[])
    else:
        a.output.line(f"held ({found.hold.rule}): {found.hold.message}" if found.hold else "it would be applied")
        if found.hold and found.hold.hint:
            a.output.line(f"hint: {found.hold.hint}")
        show_findings(a.output, [asdict(finding) for finding in found.hold.findings] if found.hold else [])
        rows = [[near.rule, near.column, near.share, near.limit] for near in found.nearest]
        a.output.table(["rule", "column", "saw %", "holds above %"], rows, empty="no rule saw anything")
    if found.hold:
        raise typer.Exit(ExitCode.HELD)


def _replay(a: App, type_: SyncType, agent_id: str, folder: Path, *, json: bool) -> None:
    from dataclasses import asdict

    from archisync.cli.diff import locked_agent
    from archisync.sync.preview import replay

    with locked_agent(a, type_, agent_id) as db:
        found = list(replay(db, a.config, type_, agent_id, folder))
    if json:
        a.output.json(would_be_held=None, nearest=[], exports=[asdict(each) for each in found])
    else:
        rows = [
            [each.name, each.written_at, each.seen, each.hold and each.hold.rule, each.hold and each.hold.message]
            for each in found
        ]
        a.output.table(["export", "written", "rows", "would be held", "why"], rows, empty=f"no files in {folder}")
    if any(each.hold for each in found):
        raise typer.Exit(ExitCode.HELD)
