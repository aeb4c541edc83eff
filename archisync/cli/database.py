"""`archisync db`: the schema."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync.base.errors import ExitCode
from archisync.cli.arguments import Json
from archisync.cli.context import app
from archisync.cli.groups import command_group

MIGRATION_STATEMENT_S = 600
"""A migration may rewrite a large table, or wait for another `db migrate`."""

commands = command_group("The database schema.")


@commands.command()
def migrate(ctx: typer.Context, json: Json = False) -> None:
    """Create or update the schema. Safe to run twice, or twice at once.

    Example: archisync db migrate
    """
    from archisync.store import migrations

    a = app(ctx)
    timeout_s = max(MIGRATION_STATEMENT_S, a.config.database_timeout_s)
    with a.database("db migrate", answer_timeout_s=timeout_s) as db:
        applied = migrations.migrate(db, a.config.environment)
    if json:
        a.output.json(applied=applied)
        return
    for name in applied:
        a.output.line(f"applied {name}")
    if not applied:
        a.output.line("the schema is current")


@commands.command()
def status(
    ctx: typer.Context,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help=f"Exit {ExitCode.CONFIGURATION.value} when the schema is not current.")
    ] = False,
    json: Json = False,
) -> None:
    """Show whether the schema is current.

    Example, in a deployment: archisync db status --exit-code || archisync db migrate
    """
    from archisync.store import migrations

    a = app(ctx)
    with a.database("db status") as db:
        applied, problem = migrations.applied(db), migrations.problem(db)
    if json:
        missing = [str(m) for m in migrations.migrations() if applied.get(m.version) != m.name]
        a.output.json(current=not problem, applied=list(applied), missing=missing)
    else:
        a.output.line(problem.message if problem else "the schema is current")
    if problem:
        a.output.say(f"hint: {problem.hint}")
        if exit_code:
            raise typer.Exit(ExitCode.CONFIGURATION)


@commands.command()
def grants(
    ctx: typer.Context,
    prefix: Annotated[str, typer.Option("--prefix", help="The beginning of the roles' names.")] = "archisync",
) -> None:
    """Print SQL that makes roles with few rights. One each for ticks, workers, operators and readers; needs no connection.

    Example: archisync db grants | psql --single-transaction "$ARCHISYNC_DATABASE_URL"
    """
    from archisync.store.grants import grants_sql

    for line in grants_sql(prefix).splitlines():
        app(ctx).output.line(line)
