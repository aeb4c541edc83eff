"""What every command works with: the output, the configuration, a database connection, the name of the person who types."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from archisync.base.errors import ConfigurationError, ExitCode, UsageError
from archisync.cli.output import Output
from archisync.rules.config import Config
from archisync.rules.synctypes import SyncType, all_types, sync_type

if TYPE_CHECKING:
    from archisync.store.audit import Actor
    from archisync.store.database import Database


@dataclass(frozen=True, kw_only=True)
class App:
    """The root command makes one; the other commands get it with `app(ctx)`."""

    output: Output
    config: Config

    @contextmanager
    def database(self, purpose: str, *, answer_timeout_s: int | None = None) -> Iterator[Database]:
        """A connection for one command. `purpose` is its name in pg_stat_activity. Raises database errors as archisync errors."""
        from archisync.store import synctypes
        from archisync.store.database import connected

        seconds = answer_timeout_s or self.config.database_timeout_s
        with connected(self.config.database_url, purpose=purpose, answer_timeout_s=seconds) as db:
            synctypes.load(db)
            yield db

    def learn_types(self) -> None:
        """Know the company's own sync types. Without a database to ask there are none."""
        with suppress(ConfigurationError), self.database("types"):
            pass


def confirm(a: App, question: str, *, refusal: str, hint: str) -> None:
    """Go on only if the person at the terminal says yes. Raises UsageError, with the flag to type, if there is none to ask."""
    answer = a.output.ask(question)
    if answer is None:
        raise UsageError(f"{refusal}; nothing was done", hint=hint)
    if not answer:
        a.output.say("nothing was done")
        raise typer.Exit(ExitCode.USAGE)


def one_or_all(a: App, type_name: str | None, everything: bool, *, question: str, command: str) -> list[SyncType]:
    """The type, or every type with `everything` or after the person at the terminal said yes. Raises UsageError."""
    if type_name is not None and everything:
        raise UsageError("--all goes without a type", hint=f"archisync {command} --all")
    if type_name is not None:
        return [sync_type(type_name)]
    if not everything:
        confirm(
            a,
            f"{question}?",
            refusal=f"which type? without one: {question}",
            hint=f"archisync {command} TYPE   (or --all)",
        )
    return list(all_types())


def app(ctx: typer.Context) -> App:
    found = ctx.find_object(App)
    assert found is not None  # the callback of the root command sets it
    return found


def actor() -> Actor:
    """Who types: the account that runs the command, whatever its environment says, and the host."""
    from archisync.store.audit import Actor, Via

    uid = os.getuid()
    try:
        account = pwd.getpwuid(uid).pw_name
    except KeyError:  # no passwd entry for this uid, as in many containers
        account = f"uid {uid}"
    return Actor(name=f"{account}@{socket.gethostname()}", via=Via.CLI)
