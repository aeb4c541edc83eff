"""`archisync interval`, `enable`, `disable`: how often each type is fetched, and whether it is scheduled."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.cli.arguments import Json, OptionalType, TypeArgument, TypeArguments
from archisync.cli.context import App, app
from archisync.rules.synctypes import SYNC_TYPES, sync_type

commands = typer.Typer(help="How often each type is fetched.", no_args_is_help=True, rich_markup_mode=None)


@commands.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
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
        [s.sync_type, s.interval_minutes, SYNC_TYPES[s.sync_type].default_interval_minutes, s.enabled, s.updated_at]
        for s in found
    ]
    a.output.table(["type", "minutes", "default", "enabled", "changed"], rows, less=["default", "changed"])


@commands.command("set")
def set_(
    ctx: typer.Context,
    type_name: TypeArgument,
    minutes: Annotated[str, typer.Argument(metavar="MINUTES", help="5 to 1440")],
) -> None:
    """Change the interval of one type, from the next tick on. Other types keep theirs.

    Example: archisync interval set orders 15
    """
    from archisync.store import settings

    a = app(ctx)
    type_, every = sync_type(type_name), settings.check_interval(minutes)
    with a.database("interval set") as db:
        settings.set_interval(db, type_, every)
    a.output.line(f"{type_.name}: every {every} min")


@commands.command()
def reset(ctx: typer.Context, type_name: OptionalType = None) -> None:
    """Put the interval of one type, or of all, back to the default.

    Example: archisync interval reset orders
    """
    from archisync.store import settings

    a = app(ctx)
    types = [sync_type(type_name)] if type_name is not None else list(SYNC_TYPES.values())
    with a.database("interval reset") as db, db.transaction():
        for type_ in types:
            settings.set_interval(db, type_, a.config.seed_interval(type_))
    for type_ in types:
        a.output.line(f"{type_.name}: every {a.config.seed_interval(type_)} min")


def enable(ctx: typer.Context, type_names: TypeArguments) -> None:
    """Schedule types again.

    Example: archisync enable prices
    """
    _set_enabled(app(ctx), type_names, True)


def disable(ctx: typer.Context, type_names: TypeArguments) -> None:
    """Stop scheduling types; `archisync run` still works.

    Example: archisync disable prices products
    """
    _set_enabled(app(ctx), type_names, False)


def _set_enabled(a: App, type_names: list[str], enabled: bool) -> None:
    from archisync.store import settings

    types = [sync_type(name) for name in type_names]
    with a.database("enable" if enabled else "disable") as db, db.transaction():
        for type_ in types:
            settings.set_enabled(db, type_, enabled)
    for type_ in types:
        a.output.line(f"{type_.name}: {'enabled' if enabled else 'disabled'}")
