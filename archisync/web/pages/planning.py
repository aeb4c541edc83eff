"""The coming day as a chart: how many runs each hour brings, and whether the workers keep up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from starlette.responses import Response

from archisync.base.errors import UnreachableError
from archisync.observe import plan
from archisync.rules.forecast import ESTIMATED, Forecast, Hour
from archisync.rules.synctypes import SYNC_TYPES
from archisync.web.calls import Call
from archisync.web.pages.look import show

HEIGHT = 200
WIDTH = 40
"""Of an hour, in the units of the drawing."""
COLOURS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """The runs of one type in one hour, as a part of its bar."""

    y: float
    height: float
    colour: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One hour: `pieces` from the bottom. `words`: the same as a sentence."""

    hour: Hour
    x: int
    pieces: Sequence[Piece]
    load: int | None


def page(call: Call) -> Response:
    """GET /plan."""
    staff = call.services.workforce.staff()
    if staff.workers is None:
        raise UnreachableError(
            staff.note or "Redis does not answer", hint="the command needs no Redis: archisync plan --workers 2"
        )
    with call.database() as db:
        found = plan.forecast(db, type_name=None, agent_id=None, span=timedelta(days=1), workers=len(staff.workers))
        types = [name for name in SYNC_TYPES if any(name in hour.runs for hour in found.hours)]
        return show(
            call, db, "plan.html", title="Plan", found=found, types=types, columns=columns(found, types), most=_most(found),
            queued=sum(found.queued.values()), width=WIDTH * len(found.hours), height=HEIGHT, colours=COLOURS, estimated=ESTIMATED,
        )  # fmt: skip


def _most(found: Forecast) -> int:
    return max((hour.total for hour in found.hours), default=0)


def columns(found: Forecast, types: Sequence[str]) -> list[Column]:
    """A bar for each hour, as high as its runs; the highest is HEIGHT."""
    most = _most(found) or 1
    return [
        Column(
            hour=hour,
            x=WIDTH * i,
            pieces=_pieces(hour, types, most),
            load=None if hour.load is None else round(100 * hour.load),
        )
        for i, hour in enumerate(found.hours)
    ]


def _pieces(hour: Hour, types: Sequence[str], most: int) -> list[Piece]:
    found, below = [], float(HEIGHT)
    for i, name in enumerate(types):
        height = round(HEIGHT * hour.runs.get(name, 0) / most, 1)
        below = round(below - height, 1)
        if height:
            found.append(Piece(y=below, height=height, colour=i % COLOURS))
    return found
