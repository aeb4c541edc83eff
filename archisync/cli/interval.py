"""`archisync interval`, `enable`, `disable`: how often each type is fetched, and whether it is scheduled."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.cli.arguments import Columns, EveryType, Json, OptionalType, Reason, TypeArgument, TypeArguments
from archisync.cli.context import App, actor, app, one_or_all
from archisync.cli.groups import command_group
from archisync.rules.synctypes import sync_type

commands = command_group("How often each type is fetched.")


@commands.command("list")
def list_(ctx: typer.Context, columns: Columns = None, json: Json = False) -> None:
    """Show the interval of each type.

    Example: archisync interval list
    """
    from archisync.store import settings

    a = app(ctx)
    with a.database("interval list") as db:
        found = settings.all_settings(db)
    if json:
        a.output.json(intervals=found)
        return
    rows = [
        [s.sync_type, s.interval_minutes, sync_type(s.sync_type).default_interval_minutes, s.enabled, s.updated_at]
        for s in found
    ]
    heads = ["type", "minutes", "default", "enabled", "changed"]
    a.output.table(heads, rows, less=["default", "changed"], columns=columns)


@commands.command("set")
def set_(
    ctx: typer.Context,
    type_name: TypeArgument,
    minutes: Annotated[str, typer.Argument(metavar="MINUTES", help="5 to 1440")],
    reason: Reason = None,
) -> None:
    """Change the interval of one type, from the next tick on. Other types keep theirs.

    Example: archisync interval set orders 15
    """
    from archisync.actions.settings import set_intervals
    from archisync.store import settings

    a = app(ctx)
    type_, every = sync_type(type_name), settings.check_interval(minutes)
    with a.database("interval set") as db:
        set_intervals(db, actor(), {type_: every}, why=reason)
    a.output.line(f"{type_.name}: every {every} min")


@commands.command()
def reset(
    ctx: typer.Context, type_name: OptionalType = None, everything: EveryType = False, reason: Reason = None
) -> None:
    """Put the interval of one type, or of all with --all, back to the default.

    Example: archisync interval reset orders
    """
    from archisync.actions.settings import set_intervals

    a = app(ctx)
    types = one_or_all(
        a, type_name, everything, question="put the intervals of all types back", command="interval reset"
    )
    minutes = {type_: a.config.seed_interval(type_) for type_ in types}
    with a.database("interval reset") as db:
        set_intervals(db, actor(), minutes, why=reason)
    for type_, every in minutes.items():
        a.output.line(f"{type_.name}: every {every} min")


def enable(ctx: typer.Context, type_names: TypeArguments, reason: Reason = None) -> None:
    """Schedule types again.

    Example: archisync enable prices
    """
    _set_enabled(app(ctx), type_names, True, reason)


def disable(ctx: typer.Context, type_names: TypeArguments, reason: Reason = None) -> None:
    """Stop scheduling types; `archisync run` still works.

    Example: archisync disable prices products
    """
    _set_enabled(app(ctx), type_names, False, reason)


def _set_enabled(a: App, type_names: list[str], enabled: bool, why: str | None) -> None:
    from archisync.actions.settings import set_enabled

    types = [sync_type(name) for name in type_names]
    with a.database("enable" if enabled else "disable") as db:
        set_enabled(db, actor(), types, enabled, why=why)
    for type_ in types:
        a.output.line(f"{type_.name}: {'enabled' if enabled else 'disabled'}")
