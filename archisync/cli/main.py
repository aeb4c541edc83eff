"""The root command: global options and the list of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from archisync import __version__
from archisync.cli import (
    agent,
    data,
    database,
    demo,
    doctor,
    guard,
    held,
    history,
    interval,
    metrics,
    pause,
    plan,
    redis,
    report,
    run,
    status,
    tick,
    up,
    why,
    worker,
)
from archisync.cli.context import App
from archisync.config import Config
from archisync.output import Output

root = typer.Typer(
    name="archisync",
    help="Keeps PostgreSQL copies of ERP data fresh, and never harms them.\n\nFirst time? Try: archisync demo",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich costs more than the rest of --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"archisync {__version__}")
        raise typer.Exit


@root.callback()
def main(
    ctx: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data, errors and log events.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    ctx.obj = App(output=Output(quiet=quiet), config=Config.from_environment())


root.command("demo")(demo.demo)
root.command("up")(up.up)
root.command("tick")(tick.tick)
root.command("run")(run.run)
root.command("status")(status.status)
root.command("plan")(plan.plan)
root.command("history")(history.history)
root.command("show")(history.show)
root.command("why")(why.why)
root.command("enable")(interval.enable)
root.command("disable")(interval.disable)
root.command("pause")(pause.pause)
root.command("resume")(pause.resume)
root.command("doctor")(doctor.doctor)
root.command("metrics")(metrics.metrics)
root.command("report")(report.report)
root.command("worker")(worker.worker)
root.command("prune")(history.prune)
root.command("diff")(data.diff)
root.command("clear")(data.clear)
root.add_typer(interval.commands, name="interval")
root.add_typer(agent.commands, name="agent")
root.add_typer(held.commands, name="held")
root.add_typer(guard.commands, name="guard")
root.add_typer(database.commands, name="db")
root.add_typer(redis.commands, name="redis")
