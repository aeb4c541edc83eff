"""`archisync guard`: the shares of its known rows that an export may lose or change before it is held."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from archisync.cli.arguments import Json, OptionalType, Reason, TypeArgument
from archisync.cli.context import actor, app
from archisync.cli.groups import command_group
from archisync.rules.synctypes import all_types, sync_type

commands = command_group("When an export is held.")


class Share(StrEnum):
    DROP = "drop"
    DELETE = "delete"
    REWRITE = "rewrite"


@commands.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """Show the guard's thresholds. An export that drops, deletes or rewrites a larger share of the known rows is held.

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


@commands.command("set")
def set_(
    ctx: typer.Context,
    type_name: TypeArgument,
    share: Annotated[Share, typer.Argument(metavar="SHARE", help="drop, delete or rewrite")],
    percent: Annotated[str, typer.Argument(metavar="PERCENT", help="0 to 100; 100 switches this one rule off")],
    reason: Reason = None,
) -> None:
    """Change one threshold of one type.

    Example: archisync guard set prices rewrite 80
    """
    from dataclasses import replace

    from archisync.actions.settings import set_limits
    from archisync.store import settings

    a = app(ctx)
    type_, value = sync_type(type_name), settings.check_percent(percent)
    with a.database("guard set") as db, db.transaction():
        limits = replace(settings.all_limits(db)[type_.name], **{share.value: value})  # type: ignore[arg-type]
        set_limits(db, actor(), {type_: limits}, why=reason)
    a.output.line(f"{type_.name}: an export is held above {value} % ({share.value})")


@commands.command()
def reset(ctx: typer.Context, type_name: OptionalType = None, reason: Reason = None) -> None:
    """Put the thresholds of one type, or of all, back to the defaults.

    Example: archisync guard reset prices
    """
    from archisync.actions.settings import set_limits
    from archisync.rules.reasons import Limits

    a = app(ctx)
    types = [sync_type(type_name)] if type_name is not None else all_types()
    with a.database("guard reset") as db:
        set_limits(db, actor(), dict.fromkeys(types, Limits()), why=reason)
    for type_ in types:
        a.output.line(f"{type_.name}: default thresholds")
