"""What every command gets: where to write, the configuration, a connection."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from archisync.cli.output import Output
from archisync.rules.config import Config

if TYPE_CHECKING:
    from archisync.store.database import Database

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


@dataclass(frozen=True, kw_only=True)
class App:
    """The invocation's context; commands get it with `app(ctx)`."""

    output: Output
    config: Config

    @contextmanager
    def database(self, purpose: str, *, answer_timeout_s: int | None = None) -> Iterator[Database]:
        """A connection for one command; database errors come out as archisync errors."""
        from archisync.store.database import connected

        seconds = answer_timeout_s or self.config.database_timeout_s
        with connected(self.config.database_url, purpose=purpose, answer_timeout_s=seconds) as db:
            yield db


def app(ctx: typer.Context) -> App:
    found = ctx.find_object(App)
    assert found is not None  # the callback of the root command sets it
    return found


def user_name() -> str:
    """Who types: recorded with decisions and forced runs."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no passwd entry for this uid, as in many containers
        import os

        return f"uid {os.getuid()}"
